"""Frankle, Schwab & Morcos 2020: the runs, their counts, the claims and the tables."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from report_samples import blocks_of, load, results_of, row, runs_of, verdicts, write_folder

from maskedconv import count_parameters
from maskedconv.papers.frankle2020 import PAPER, bnonly, presets
from maskedconv.papers.frankle2020.printed import PRINTED, comparable
from maskedconv.papers.frankle2020.scales import scales
from maskedconv.papers.frankle2020.settings import (
    ALL,
    BN,
    BN_FC,
    BN_SHORTCUTS_FC,
    FC,
    RANDOM,
    SETTINGS,
    norm_parameters,
    setting_of,
    width,
)
from maskedconv.report.build import notice
from maskedconv.report.document import Figure, Table
from maskedconv.runs.execute import build_model

IMAGE = (1, 8, 8)
BY_DEPTH = {14: 1_120, 32: 2_464, 56: 4_256, 110: 8_288, 218: 16_352, 434: 32_480, 866: 64_736}
TOP1 = {ALL: 95.0, BN_SHORTCUTS_FC: 70.0, BN_FC: 60.0, BN: 50.0, FC: 30.0, RANDOM: 15.0}


def test_runs_of_the_paper():
    runs = runs_of("bnonly", "paper", seeds=2)
    assert len(runs) == 2 * (7 + 4) * 6
    assert {run.epochs for run in runs} == {160}
    assert {run.milestones for run in runs} == {(80, 120)}
    assert {(run.dataset, run.batch_size, run.lr, run.weight_decay) for run in runs} == {
        ("cifar10", 128, 0.1, 1e-4)
    }
    networks = {(run.model, width(run)) for run in runs}
    assert networks == {
        *((f"resnet_{depth}", 1.0) for depth in BY_DEPTH),
        *(("resnet_14", float(factor)) for factor in (2, 4, 8, 16)),
    }
    assert [setting_of(run).name for run in runs[:6]] == [setting.name for setting in SETTINGS]


def test_shorter_runs_have_the_schedule_in_proportion():
    runs = runs_of("bnonly", "paper", epochs=16, subset=7, dataset="cifar100")
    fields = {(run.epochs, run.milestones, run.subset, run.dataset) for run in runs}
    assert fields == {(16, (8, 12), 7, "cifar100")}


@pytest.mark.parametrize(("depth", "expected"), BY_DEPTH.items())
def test_the_control_learns_as_many_as_there_are_in_the_norms(depth, expected):
    assert norm_parameters(depth, 1) == expected
    runs = [run for run in runs_of("bnonly", "paper") if run.model == f"resnet_{depth}"]
    counts = [dict(run.method_options).get("count") for run in runs if width(run) == 1]
    assert counts == [None] * 5 + [expected]


@pytest.mark.parametrize("run", runs_of("bnonly"), ids=lambda run: run.label())
def test_what_each_setting_learns(run):
    total = count_parameters(
        build_model(replace(run, method="slice", method_options=()), 10, IMAGE)
    )
    learned = count_parameters(build_model(run, 10, IMAGE))
    factor = int(width(run))
    norms = norm_parameters(int(run.model.removeprefix("resnet_")), factor)
    output, shortcuts = 640 * factor + 10, 2_560 * factor**2
    expected = {
        ALL: total.total,
        BN_SHORTCUTS_FC: norms + shortcuts + output,
        BN_FC: norms + output,
        BN: norms,
        FC: output,
        RANDOM: norms,
    }
    assert (learned.learned, learned.total) == (expected[setting_of(run).name], total.total)


def samples(tmp_path, runs, top1=TOP1, small=0.3, **changes):
    """Results of ``runs``; of 1000 γ, 10 are small before and ``small`` of them after BN only."""
    runs = [replace(run, **changes) for run in runs]
    out = write_folder(tmp_path / "out", {"bnonly": runs}, lambda run: 50.0)
    lines = []
    for run in runs:
        name = setting_of(run).name
        counts = [0] * 20 + [50] * 20 + [0] * 20
        before = {"counts": counts, "small": 10}
        after = {"counts": counts, "small": int(1000 * small) if name == BN else 12}
        norms = {"low": -1.0, "high": 2.0, "before": before, "after": after}
        depth = int(run.model.removeprefix("resnet_"))
        accuracy = top1[name] + (0.02 * depth + width(run) if name == BN else 0)
        extra = {} if name in (FC, RANDOM) else {"norms": norms}
        lines.append(json.dumps(row(run, accuracy, data_note="", **extra)))
    (out / "results.jsonl").write_text("\n".join(lines) + "\n")
    return out


def test_claims_of_full_runs(tmp_path):
    found = verdicts(load(samples(tmp_path, runs_of("bnonly", "paper"))))
    assert found == {
        "bn-far-above-chance": "reproduced",
        "bn-above-random-positions": "reproduced",
        "bn-deeper": "reproduced",
        "bn-wider": "reproduced",
        "bn-disables": "reproduced",
        "bn-a-third": "reproduced",
        "bn-82": "not",
    }


def test_claims_of_small_runs_that_fail(tmp_path):
    top1 = {**TOP1, BN: 8.0, RANDOM: 14.0}
    found = verdicts(load(samples(tmp_path, runs_of("bnonly"), top1, small=0.01)))
    assert found == {
        "bn-far-above-chance": "not",
        "bn-above-random-positions": "not",
        "bn-deeper": "undecided",
        "bn-wider": "undecided",
        "bn-disables": "not",
        "bn-a-third": "not run",
        "bn-82": "not run",
    }


@pytest.mark.parametrize(
    ("small", "disables", "third"),
    [
        (0.30, "reproduced", "reproduced"),
        (0.26, "reproduced", "undecided"),
        (0.038, "undecided", "not"),
        (0.012, "not", "not"),
    ],
)
def test_disabled_features_are_counted_against_those_before(tmp_path, small, disables, third):
    """Of 1000 γ, 10 are small before: 3 % has a spread of .9 points, 26 % one of 1.4."""
    runs = [run for run in runs_of("bnonly", "paper") if run.model == "resnet_866"]
    found = verdicts(load(samples(tmp_path, runs, small=small)))
    assert (found["bn-disables"], found["bn-a-third"]) == (disables, third)


def test_full_runs_on_imagenet_are_not_called_short(tmp_path):
    for epochs, short in ((90, False), (89, True)):
        runs = runs_of("bnonly", "paper", dataset="imagenet", epochs=epochs)[:1]
        results = results_of(tmp_path, {"bnonly": runs}, lambda run: 70.0, preset="paper")
        assert ("fewer epochs" in notice(results)) is short


def test_printed_numbers_are_compared_only_with_the_same_images_and_epochs(tmp_path):
    runs = runs_of("bnonly", "paper")
    results = load(samples(tmp_path, runs))
    assert all(comparable(group) for group in results.seed_groups("bnonly"))
    tables = blocks_of(bnonly.build, results, "bnonly", tmp_path, Table)
    theirs = tables[-1]
    assert "compared with other sources" in theirs.caption
    assert len(theirs.rows) == sum(map(len, PRINTED.values()))
    deepest = [row for row in theirs.rows if row[0] == "resnet_866"]
    assert deepest[0][1:] == [
        "BN only",
        "68.32",
        "68.07",
        "82.00",
        "the paper's abstract",
        "−13.68",
    ]
    short = load(samples(tmp_path / "short", runs, epochs=8))
    assert not any(comparable(group) for group in short.seed_groups("bnonly"))
    tables = blocks_of(bnonly.build, short, "bnonly", tmp_path, Table)
    assert "not comparable" in tables[-1].caption
    assert {row[-1] for row in tables[-1].rows} == {"–"}


def test_figures_and_tables(tmp_path):
    results = load(samples(tmp_path, runs_of("bnonly", seeds=2)))
    groups = results.seed_groups("bnonly")
    accuracy, gammas = blocks_of(bnonly.build, results, "bnonly", tmp_path, Figure)
    assert [picture.name for picture in accuracy.pictures] == [
        "bnonly-digits-depth",
        "bnonly-digits-width",
    ]
    assert len(gammas.pictures) == 4
    table, small, _ = blocks_of(bnonly.build, results, "bnonly", tmp_path, Table)
    assert len(table.rows) == len(groups) == 24
    assert ["resnet_8", "BN only", "2,000", "1.0", "30.0"] in [list(row) for row in small.rows]
    (short,) = bnonly.short_tables(groups)
    assert short.rows[0][1:] == ["95.0 ± 0.0", "70.0 ± 0.0", "60.0 ± 0.0", "51.2 ± 0.0",
                                 "30.0 ± 0.0", "15.0 ± 0.0"]  # fmt: skip


def test_nothing_was_run(tmp_path):
    results = results_of(tmp_path, {"bnonly": runs_of("bnonly")}, lambda run: None)
    assert scales(results.seed_groups("bnonly")[0], "after") is None
    blocks = bnonly.build(results.seed_groups("bnonly"), tmp_path)
    assert any("no run with γ was finished" in getattr(block, "text", "") for block in blocks)


def test_the_registered_paper():
    assert [item.id for item in PAPER.items] == ["bnonly"]
    assert set(PAPER.presets) == {"quick", "short", "paper"}
    quick = presets.PRESETS["quick"]
    assert [network.model for network in quick.networks] == ["resnet_8", "resnet_14", "resnet_20",
                                                             "resnet_8"]  # fmt: skip


def test_photographs_are_for_imagenet_networks(tmp_path):
    """With as many random positions as each network has γ and β, and the top-5."""
    runs = runs_of("bnonly", "paper", dataset="imagenet")
    assert len(runs) == 5 * len(SETTINGS)
    assert {run.warmup for run in runs} == {5}
    counts = {dict(run.method_options)["count"] for run in runs if run.method_options}
    assert counts == {9_600, 17_024, 53_120, 105_344, 176_000}
    out = write_folder(tmp_path / "out", {"bnonly": runs}, lambda run: 10.0)
    lines = (json.dumps(row(run, 10.0, measured={"top5": 32.0})) for run in runs)
    (out / "results.jsonl").write_text("\n".join(lines) + "\n")
    table = bnonly.accuracy_table(load(out).seed_groups("bnonly"))
    assert table.columns[-1] == "top-5, last"
    assert {row[-1] for row in table.rows} == {"32.00"}
