"""The items supermask and biprop: their runs, sections and claims, from synthetic rows."""

from __future__ import annotations

import pytest
import torch

from maskedconv import papers
from maskedconv.papers.diffenderfer2021.claims import CLAIMS as BIPROP_CLAIMS
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
