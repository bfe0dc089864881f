"""The items supermask and biprop: their runs, sections and claims, from synthetic rows."""

from __future__ import annotations

import pytest
import torch

from maskedconv import papers
from maskedconv.papers.diffenderfer2021 import biprop
from maskedconv.papers.diffenderfer2021.claims import CLAIMS as BIPROP_CLAIMS
from maskedconv.papers.diffenderfer2021.printed import CIFAR10, printed_tables, run_of
from maskedconv.papers.ramanujan2019.claims import CLAIMS as SUPERMASK_CLAIMS
from maskedconv.report.claims import judge_one
from maskedconv.report.masks import kept_fraction, method_option, width_of
from maskedconv.report.results import Run, SeedGroup, is_reference
from maskedconv.runs.execute import build_model
from maskedconv.runs.masks import describe_masks
from maskedconv.runs.preset import Request

ITEMS = ("supermask", "biprop")


def runs(name, preset="quick", **options):
    (item,) = papers.select([name])
    return papers.make_plan([item], Request(preset=preset, **options)).runs[item]


def group(config, top1):
    history = [{"epoch": e, "test_top1": top1} for e in range(1, config.epochs + 1)]
    masks = [{"name": "fc", "size": 1000, "kept": 500, "kept_globally": 400}]
    row = {
        "key": config.key,
        "config": config.to_json(),
        "status": "done",
        "history": history,
        "best_top1": top1,
        "last_top1": top1,
        "total_parameters": 1000,
        "learned_parameters": 1000,
        "data_note": "",
        **({} if is_reference(config) else {"masks": masks}),
    }
    return SeedGroup((Run(config, row, config.key),))


@pytest.mark.parametrize("preset", ["quick", "short", "paper"])
@pytest.mark.parametrize("name", ITEMS)
def test_each_run_is_planned_once(name, preset):
    planned = runs(name, preset)
    assert len({run.key for run in planned}) == len(planned)
    assert any(is_reference(run) for run in planned)
    options = {"seeds": 2, "dataset": "cifar10", "epochs": 3, "subset": 9, "amp": "bf16"}
    for run in runs(name, preset, **options):
        assert (run.dataset, run.epochs, run.subset, run.amp) == ("cifar10", 3, 9, "bf16")


@pytest.mark.parametrize("name", ITEMS)
def test_networks_of_the_quick_preset(name):
    for run in runs(name):
        model = build_model(run, 10, (1, 8, 8))
        model(torch.randn(2, 1, 8, 8))
        masks = describe_masks(model)
        assert bool(masks) != is_reference(run)
        shared = sum(mask["kept_globally"] for mask in masks)
        weights = sum(mask["size"] for mask in masks)
        if masks:
            assert weights - shared == int((1 - kept_fraction(run)) * weights + 1e-9)
        if method_option(run, "threshold") == "global":
            assert all(mask["kept"] == mask["kept_globally"] for mask in masks)


@pytest.mark.parametrize("name", ITEMS)
def test_sections(name, tmp_path):
    (item,) = papers.select([name])
    settings = [group(run, 90.0) for run in runs(name)]
    blocks = item.build(settings, tmp_path)
    kinds = [block.kind for block in blocks]
    assert kinds[0] == "text"
    assert "figure" in kinds
    main = next(block for block in blocks if block.kind == "table")
    assert len(main.rows) == len(settings)
    learned = [row for row in main.rows if row[1] == "weights"]
    assert len(learned) == sum(is_reference(run.config) for run in settings)
    layers = next(b for b in blocks if b.kind == "table" and "one threshold" in b.caption)
    assert layers.rows[0][2:] == ["1,000", "50.0", "40.0"]
    assert {f.suffix for f in tmp_path.iterdir()} == {".svg", ".png"}
    for table in item.short_tables(settings):
        assert {cell for row in table.rows for cell in row[1:]} <= {"90.0", "–"}


def verdicts(claims, name, top1, **options):
    settings = [group(run, top1(run)) for run in runs(name, **options)]
    return {claim.id: judge_one(claim, name, settings).status for claim in claims}


def test_claims_of_supermasks_are_decided_by_their_criteria():
    def as_printed(run):
        if is_reference(run):
            return 95.0
        loss = 60 * abs(kept_fraction(run) - 0.5) + 30 / (1 + 20 * width_of(run) ** 2)
        return 99.0 - loss - 10 * (method_option(run, "weights") == "kaiming")

    found = verdicts(SUPERMASK_CLAIMS, "supermask", as_printed, seeds=1)
    assert found == dict.fromkeys(found, "reproduced")
    at_chance = verdicts(
        SUPERMASK_CLAIMS, "supermask", lambda run: 95.0 if is_reference(run) else 10.0
    )
    assert at_chance["untrained-subnetworks"] == at_chance["matches-learned"] == "not"


def test_claims_of_biprop_are_decided_by_their_criteria():
    def as_printed(run):
        if is_reference(run):
            return 95.0
        return 95.0 - 5 * (method_option(run, "norm_learned") is None)

    found = verdicts(BIPROP_CLAIMS, "biprop", as_printed)
    # A number on CIFAR-10 is not compared with digits.
    assert found.pop("printed-accuracy") == "not run"
    assert found == dict.fromkeys(found, "reproduced")


def test_printed_accuracies_need_the_whole_run():
    printed = {(0.05, None): 91.0, (0.2, None): 94.5, (0.2, True): 94.9, (0.25, None): 89.0}

    def near(run):
        key = kept_fraction(run), method_option(run, "norm_learned")
        return printed.get(key, 92.0)

    found = verdicts(BIPROP_CLAIMS, "biprop", near, preset="paper")
    assert found["printed-accuracy"] == "reproduced"
    assert verdicts(BIPROP_CLAIMS, "biprop", near, preset="short")["printed-accuracy"] == "not run"
    for epochs, ours in ((100, "91.00"), (99, "–")):
        settings = [group(run, near(run)) for run in runs("biprop", "paper", epochs=epochs)]
        assert printed_tables(settings)[0].rows[0][2] == ours


@pytest.mark.parametrize("number", CIFAR10)
def test_one_printed_accuracy_alone_leaves_the_others_open(number):
    settings = [group(run, number.top1) for run in runs("biprop", "paper")]
    own = run_of(number, settings)
    (claim,) = (one for one in BIPROP_CLAIMS if one.id == "printed-accuracy")
    verdict = judge_one(claim, "biprop", [own])
    assert verdict.status == "undecided"
    assert [case.name for case in verdict.cases if case.holds] == [number.network]
    assert len(verdict.cases) == len(CIFAR10)


def test_data_sets_with_networks_of_their_own():
    by_dataset = {
        name: {run.model for run in runs("supermask", "paper", dataset=name)}
        for name in ("cifar10", "mnist", "mnist5k", "imagenet")
    }
    assert by_dataset["cifar10"] >= {"conv8", "resnet18", "wrn_28_4", "densenet_bc_100_12"}
    assert by_dataset["mnist"] == {"fc_300_100"}
    assert by_dataset["mnist5k"] == {"fc_300_100", "conv2"}
    assert by_dataset["imagenet"] == {"imagenet_resnet_50"}
    planned = {run.dataset for run in runs("supermask", "paper")}
    assert planned == {"cifar10", "mnist"}
    photographs = runs("supermask", "paper", dataset="imagenet")
    trained = {(run.momentum, run.weight_decay, run.warmup) for run in photographs}
    assert trained == {(0.875, 3.05e-5, 5)}
    assert {run.epochs for run in photographs} == {100}
    rates: dict[object, set[float]] = {}
    for run in photographs:
        rates.setdefault(method_option(run, "weights"), set()).add(run.lr)
    assert rates == {"signed_constant": {0.1}, "kaiming": {0.256}, None: {0.256}}


def test_runs_on_imagenet_are_beside_the_printed_numbers(tmp_path):
    (item,) = papers.select(["supermask"])
    for dataset, ours in (("imagenet", ["60.00", "70.00"]), ("photos", ["–", "–"])):
        settings = [
            group(run, 60.0 + 10 * (method_option(run, "weights") == "signed_constant"))
            for run in runs("supermask", "paper", dataset=dataset)
        ]
        table = item.build(settings, tmp_path)[-1]
        (row,) = (row for row in table.rows if row[0] == "ResNet-50")
        assert (row[1::2], row[2::2]) == (["61.7", "68.6"], ours)


@pytest.mark.parametrize("preset", ["quick", "short", "paper"])
def test_each_kind_of_biprop_has_a_style(preset):
    kinds = {biprop.kind(run) for run in runs("biprop", preset)}
    assert kinds - {biprop.LEARNED} == set(biprop.STYLES)


@pytest.mark.parametrize(("gap", "status"), [(0.5, "reproduced"), (20.0, "not")])
def test_binary_activations_are_compared_with_learned_weights(gap, status):
    def top1(run):
        return 95.0 - gap * (dict(run.options).get("activation") == "sign")

    found = verdicts(BIPROP_CLAIMS, "biprop", top1, preset="paper")
    assert found["binary-activations"] == status
