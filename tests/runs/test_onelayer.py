"""The runs of one-layer tickets: what they are, that they resume, and their report."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from stopped_runs import stopped_after

from maskedconv import data
from maskedconv.papers import PAPERS
from maskedconv.papers.shen2021 import PAPER, printed
from maskedconv.papers.shen2021.onelayer import ITEM
from maskedconv.papers.shen2021.runs import (
    OWN,
    SHARED,
    TRAINED,
    UNTRAINED,
    UNTRAINED_LR,
    kept,
    kind,
    translates,
)
from maskedconv.report.claims import judge_one
from maskedconv.report.results import Run, SeedGroup
from maskedconv.runs import RunConfig, Store
from maskedconv.runs.estimate import estimate
from maskedconv.runs.execute import build_model, execute
from maskedconv.runs.images import Size
from maskedconv.runs.preset import Request
from maskedconv.runs.same import learned_fraction
from maskedconv.runs.workers import Workers


def runs_of(preset="quick", **options):
    return ITEM.runs(PAPER.preset(Request(preset, **options)))


# A Transformer of one layer on few pairs.
SMALL = RunConfig(
    model="transformer_1_16",
    dataset="number-words-1000",
    learned=1.0,
    epochs=3,
    batch_size=16,
    lr=1e-2,
    momentum=0.9,
    weight_decay=1e-3,
    milestones=(),
    gamma=1.0,
    schedule="cosine",
    optimizer="adam",
    options=(("fold", True),),
    method="supermask",
    method_options=(("k", 0.5), ("scale", False), ("weights", "network")),
    seed=3,
)


@pytest.fixture(scope="module")
def few():
    """Some of the pairs."""
    task = data.load("number-words-1000")
    return replace(
        task,
        train_pairs=task.train_pairs[::60],
        train_targets=task.train_targets[::60],
        test_pairs=task.test_pairs[::40],
        test_targets=task.test_targets[::40],
    )


def test_the_runs_of_the_preset():
    found = [(kind(run), kept(run)) for run in runs_of() if translates(run)]
    assert found == [
        (TRAINED, 1.0), (OWN, 0.5), (SHARED, 0.3), (SHARED, 0.5), (SHARED, 0.7), (UNTRAINED, 0.5),
    ]  # fmt: skip
    assert [kind(run) for run in runs_of() if not translates(run)] == [TRAINED, OWN, SHARED]
    for preset in PAPER.presets:
        runs = runs_of(preset, seeds=2)
        assert len({run.key for run in runs}) == len({run.label() for run in runs}) == len(runs)


@pytest.mark.parametrize(
    ("preset", "milestones"), [("paper", (80, 120)), ("quick", (5, 8)), ("short", (5, 8))]
)
def test_the_trained_resnet_lowers_its_rate(preset, milestones):
    found = {kind(run): run for run in runs_of(preset) if not translates(run)}
    assert found[TRAINED].milestones == milestones
    assert {found[name].schedule for name in (OWN, SHARED)} == {"cosine"}


def test_options_of_the_command_line_are_for_the_images():
    runs = runs_of("short", dataset="digits", subset=7, epochs=2)
    assert {(run.dataset, run.subset) for run in runs} == {
        ("number-words-10000", None), ("digits", 7)
    }  # fmt: skip
    assert {run.epochs for run in runs if kind(run) != UNTRAINED} == {2}


def test_nothing_is_learned_in_the_untrained_run(few):
    """Adam's steps at this rate change no bit of a score."""
    from maskedconv.training.loop import train

    model = build_model(SMALL, few.num_classes, few.image_shape)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, few, replace(SMALL, lr=UNTRAINED_LR, weight_decay=0.0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("writes", [1, 7, 8, 17])
def test_a_stopped_run_goes_on_to_the_same_bits(writes, few, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    config = replace(SMALL, keep=True)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = execute(config, few, folder=tmp_path / "whole")
    with stopped_after(monkeypatch, writes):
        execute(config, few, folder=tmp_path / "parts", checkpoint_seconds=0)
    again = execute(config, few, folder=tmp_path / "parts")
    assert whole["status"] == again["status"] == "done"
    for name in ("last_top1", "measured", "inference_bytes", "layers"):
        assert whole[name] == again[name]
    for one, two in zip(whole["history"], again["history"], strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}
    files = [load_file(tmp_path / part / whole["weights"]) for part in ("whole", "parts")]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(value, files[1][name]) for name, value in files[0].items())


def test_a_row_is_read_back(few, tmp_path):
    row = execute(SMALL, few)
    store = Store(tmp_path)
    store.prepare()
    store.append(row)
    found = store.load()
    assert not found.problems
    assert found.rows[SMALL.key]["measured"] == row["measured"]
    assert row["measured"].keys() == {"exact_match", "token_accuracy"}
    assert row["last_top1"] == row["measured"]["exact_match"]


def test_members_need_images(few, tmp_path):
    """The start has weights and no masks, so that a network can begin with it."""
    plain = replace(SMALL, method="slice", method_options=(), options=(), epochs=1)
    start = replace(plain, keep=True)
    assert execute(start, few, folder=tmp_path)["status"] == "done"
    row = execute(replace(plain, members=2, start=start.key), few, folder=tmp_path)
    error = (row["status"], row["error_type"], row["error"])
    expected = "members is 2; expected 0 with number-words-1000"
    assert error == ("failed", "ValueError", expected)


def row_of(run, top1):
    sizes = {TRAINED: 4000, OWN: 4100, SHARED: 2000, UNTRAINED: 2000}
    return {
        "key": run.key,
        "status": "done",
        "config": run.to_json(),
        "history": [],
        "best_top1": top1,
        "last_top1": top1,
        "learned_parameters": 1000,
        "total_parameters": 1000,
        "measured": {"token_accuracy": min(100.0, top1 + 3)},
        "inference_bytes": {"stored": 130, "in_memory": sizes[kind(run)]},
    }


def groups(tops):
    """The settings of the quick preset with these accuracies by kind."""
    return [
        SeedGroup((Run(run, row_of(run, tops[kind(run)]), run.key),)) for run in runs_of("quick")
    ]


GOOD = {TRAINED: 98.0, OWN: 92.0, SHARED: 91.0, UNTRAINED: 0.0}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["reproduced"] * 4),
        ({SHARED: 20.0}, ["not"] * 4),
        ({SHARED: 75.0}, ["reproduced", "not", "not", "not"]),
        ({OWN: 80.0}, ["reproduced"] * 4),
        ({TRAINED: 91.0 / printed.OF_TRAINED}, ["reproduced", "undecided"] + ["reproduced"] * 2),
    ],
)
def test_claims(changes, expected):
    settings = groups({**GOOD, **changes})
    assert [judge_one(claim, ITEM.id, settings).status for claim in ITEM.claims] == expected


def test_a_data_set_that_is_not_run_leaves_sharing_open():
    missing = [replace(run, dataset="cifar10") for run in runs_of("quick") if not translates(run)]
    settings = [*groups(GOOD), *(SeedGroup((Run(run, None, run.key),)) for run in missing)]
    found = {claim.id: judge_one(claim, ITEM.id, settings) for claim in ITEM.claims}
    assert found["one-layer-suffices"].status == "reproduced"
    assert found["hidden-fold"].status == "undecided"
    assert [case.holds for case in found["hidden-fold"].cases] == [True, None]


def test_section(tmp_path):
    blocks = ITEM.build(groups(GOOD), tmp_path)
    tables = [block for block in blocks if block.kind == "table"]
    assert [len(table.rows) for table in tables] == [6, 3, 2]
    assert tables[0].rows[3][1:] == [
        "masks, one layer of shared weights", "0.5", "91.00", "94.00", "1,000", "130", "2,000"
    ]  # fmt: skip
    assert tables[0].rows[5][5] == "0"
    assert (tmp_path / "onelayer-number-words-1000-kept.svg").exists()
    assert "29.45" in tables[2].rows[0]
    unfinished = [SeedGroup((Run(run, None, run.key),)) for run in runs_of("paper")]
    assert ITEM.build(unfinished, tmp_path)
    assert [len(table.rows) for table in ITEM.short_tables(groups(GOOD))] == [4, 3]


def test_estimate():
    """Runs without a convolution are timed like others."""
    sizes = {("number-words-1000", None): Size(133, (2, 7), 82, 27)}
    trained = replace(SMALL, method="slice", method_options=(), options=(), epochs=1)
    found = estimate([SMALL, trained], sizes, Workers(1, "cpu", 1))
    assert set(found) == {SMALL.key, trained.key}
    assert all(seconds > 0 for seconds in found.values())
    assert learned_fraction(trained) == 1.0


def test_printed_ratio():
    assert round(100 * printed.OF_TRAINED, 1) == 84.5


def test_the_paper_is_registered():
    assert PAPER in PAPERS
