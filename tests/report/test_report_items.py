"""The items of the report: their tables, panels and curves."""

from __future__ import annotations

import json
from dataclasses import replace

import matplotlib.figure
import pytest
from report_samples import (
    blocks_of,
    config,
    load,
    results_of,
    row,
    runs_of,
    small_plan,
    small_top1,
    write_folder,
)

from maskedconv.papers.rosenfeld2018 import fig2, fig4, fig6, table3, table4
from maskedconv.papers.rosenfeld2018.ensembles import all_parameters, stored
from maskedconv.report import build as report_build
from maskedconv.report import curves
from maskedconv.report.claims import judge
from maskedconv.report.document import Figure, Table, Text
from maskedconv.report.filters import filters_panel
from maskedconv.report.learned import learned_table
from maskedconv.report.measured import accuracy
from maskedconv.report.tables import networks
from maskedconv.runs.config import RunConfig


def test_networks_are_split_by_learning_rate_only_where_there_are_several(tmp_path):
    runs = [config("vgg19"), config("vgg19", lr=0.01), config("vgg19_bn")]
    results = results_of(tmp_path, {"fig1": runs}, small_top1)
    assert list(networks(results.seed_groups("fig1"))) == [
        "vgg19, lr 0.1",
        "vgg19, lr 0.01",
        "vgg19_bn",
    ]


def test_fig1_table_puts_random_and_zeroed_side_by_side(tmp_path):
    runs = [
        config("wrn_10_1", learned=learned, frozen=frozen)
        for learned in (0.1, 1)
        for frozen in ("random", "zero")
    ]
    values = {(0.1, "random"): 40.0, (0.1, "zero"): 20.0, (1, "random"): 30.0, (1, "zero"): None}
    results = results_of(tmp_path, {"fig1": runs}, lambda run: values[(run.learned, run.frozen)])
    rows = learned_table(results.seed_groups("fig1")).rows
    assert [row[1] for row in rows] == ["k = 1", "p = 0.1"]
    assert rows[0][4:] == ["30.00", "29.75", "diverged", "diverged"]
    assert rows[1][4:] == ["40.00", "39.75", "20.00", "19.75"]


def test_the_best_and_the_last_epoch_have_columns_of_their_own(tmp_path):
    """The claims are about the best epoch."""
    one = config("wrn_10_1", learned=0.1)
    out = write_folder(tmp_path, {"fig1": [one]}, lambda run: 40.0)
    (out / "results.jsonl").write_text(json.dumps(row(one, 40.0, last_top1=30.0)) + "\n")
    (setting,) = load(out).seed_groups("fig1")
    assert learned_table([setting]).rows[0][4:6] == ["40.00", "30.00"]
    assert (setting.best.mean, setting.last.mean) == (40.0, 30.0)
    assert accuracy(setting).value == 40.0


def test_table3_gives_both_counts(tmp_path):
    run = config("wrn_28_4", dataset="tiny-imagenet", epochs=45, learned=0.1, keep=True)
    out = write_folder(tmp_path, {"table3": [run]}, lambda run: 22.0)
    line = row(run, 22.0, learned_parameters=623_427)
    (out / "results.jsonl").write_text(json.dumps(line) + "\n")
    results = load(out)
    assert table3.with_1000_classes(results.seed_groups("table3")[0]) == table3.TABLE3[0.1][1]
    (table,) = blocks_of(table3.build, results, "table3", tmp_path, Table)
    assert table.rows[0][2:5] == ["623,427", "829,027", "829,027"]
    assert table.rows[0][-2:] == ["21.75", "+0.25"]


def test_fig4_puts_bn_learned_beside_bn_fixed(tmp_path):
    runs = [config("wrn_10_1", learned=0.1, bn_learned=bn) for bn in (True, False)]
    results = results_of(tmp_path, {"fig4": runs}, lambda run: 60.0 if run.bn_learned else 45.5)
    table = fig4.bn_table(results.seed_groups("fig4"))
    assert [row[5:] for row in table.rows] == [["60.00", "45.50", "+14.50", "59.75", "45.25"]]
    assert len(table.rows[0]) == len(table.columns)


def test_fig6_averages_the_layers_of_the_seeds(tmp_path):
    runs = [config("wrn_10_1", learned=0.4, keep=True, seed=seed) for seed in range(2)]
    out = write_folder(tmp_path, {"fig6": runs}, lambda run: 50.0)
    part = {"count": 9, "mean_abs": 0.1, "variance": 0.02}
    more = {"count": 9, "mean_abs": 0.3, "variance": 0.04}
    layers = [
        [{"name": "conv1", "kind": "conv", "learned": learned, "frozen": None}]
        for learned in (part, more)
    ]
    rows = [row(run, 50.0, layers=found) for run, found in zip(runs, layers, strict=True)]
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    (layer,) = fig6.layers(load(out).seed_groups("fig6")[0])
    assert layer.learned == {"mean_abs": pytest.approx(0.2), "variance": pytest.approx(0.03)}
    assert layer.frozen is None


def test_fig6_says_so_where_no_weights_were_kept(tmp_path):
    run = config("wrn_10_1", learned=0.4, keep=True)
    results = results_of(tmp_path, {"fig6": [run]}, lambda run: None)
    texts = blocks_of(fig6.build, results, "fig6", tmp_path, Text)
    assert any("no run with weights" in text.text for text in texts)


@pytest.mark.parametrize("channels", [1, 3])
def test_first_filters_are_framed_where_they_are_learned(channels):
    first = {"shape": [16, channels, 3, 3], "learned": 4, "values": [0.5] * (16 * channels * 9)}
    figure = matplotlib.figure.Figure()
    axes = figure.add_subplot()
    filters_panel(first)(axes)
    widths = [patch.get_linewidth() for patch in axes.patches]
    assert [width > 1 for width in widths] == [True] * 4 + [False] * 12


def ensembles() -> list[RunConfig]:
    """Table 4's runs of one small network, with two seeds."""
    return small_plan(seeds=2)["table4"]


def test_seeds_of_an_ensemble_are_one_setting_though_their_starts_differ(tmp_path):
    results = results_of(tmp_path, {"table4": ensembles()}, small_top1)
    found = results.seed_groups("table4")
    assert len(found) == 11
    assert all(len(setting.runs) == 2 for setting in found)


def test_table4_marks_the_better_optimizer_and_shows_both(tmp_path):
    results = results_of(tmp_path, {"table4": ensembles()}, small_top1)
    (table,) = blocks_of(table4.build, results, "table4", tmp_path, Table)
    assert [row[0] for row in table.rows[::2]] == list(table4.TABLE4)
    assert {row[1] for row in table.rows} == {"SGD", "Adam (better)"}


def test_table4_counts_shared_weights_once_and_not_for_unshared_members(tmp_path):
    run = config("densenet_bc_100_12", start="0" * 16, members=5, learned=0.1)
    whole = replace(run, learned=1.0)
    out = write_folder(tmp_path, {"table4": [run, whole]}, small_top1)
    sizes = {"shared": 3_000_000, "members": [400_000] * 5}
    rows = [
        row(one, 70.0, learned_parameters=count, total_parameters=769_162, stored_bytes=sizes)
        for one, count in ((run, 450_980), (whole, 3_845_810))
    ]
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    shared, unshared = load(out).seed_groups("table4")
    assert all_parameters(shared) == 450_980 + 769_162 - 90_196
    assert all_parameters(unshared) == 3_845_810
    assert stored(shared).total == 5_000_000
    assert stored(unshared).total == 2_000_000


def test_table4_waits_for_the_other_optimizer(tmp_path):
    """The better of two counts, so the gain is open while one of them is not run."""
    runs = [run for run in ensembles() if run.seed == 0]
    for skip, evidence in ((0, ""), (1, "further runs: not run, or failed")):
        results = load(write_folder(tmp_path, {"table4": runs}, small_top1, skip=skip))
        (verdict,) = [one for one in judge(results) if one.claim.id == "ensembles"]
        (case,) = verdict.cases
        assert case.evidence.partition("; ")[2] == evidence


def test_curves_draw_a_shared_run_once(tmp_path):
    run = config("wrn_10_1", learned=0.1)
    fixed = replace(run, bn_learned=False)
    plan = {"fig1": [run], "fig4": [run, fixed]}
    results = results_of(tmp_path, plan, small_top1)
    found = [block for block in curves.build(results, tmp_path) if isinstance(block, Figure)]
    assert [figure.caption for figure in found] == [
        "Figure 1, handwritten digits",
        "Figure 4, BatchNorm fixed, handwritten digits",
    ]


def test_a_planned_run_has_no_curve(tmp_path, monkeypatch):
    drawn = []

    def panel(settings, top):
        drawn.extend(setting.config.learned for setting in settings)
        return lambda axes: None

    monkeypatch.setattr(curves, "curves_panel", panel)
    runs = [config("wrn_10_1", learned=learned) for learned in (0.1, 0.4)]
    curves.build(
        load(write_folder(tmp_path / "some", {"fig1": runs}, small_top1, skip=1)), tmp_path
    )
    assert drawn == [0.1]
    none = load(write_folder(tmp_path / "none", {"fig1": runs}, small_top1, skip=2))
    assert curves.build(none, tmp_path) == []


def test_a_figure_without_panels_is_left_out(tmp_path):
    """Accuracy against k has no panel if a single k was run."""
    runs = [run for run in runs_of("supermask") if dict(run.method_options).get("k") == 0.3]
    results = results_of(tmp_path, {"supermask": runs}, lambda run: 50.0)
    text = (report_build.build(results, tmp_path).parent / "report.md").read_text()
    assert "top-1" in text
    assert "accuracy against" not in text


@pytest.mark.parametrize(("epochs", "cells"), [(1, ["60.00"]), (2, ["60.00", "59.75"])])
def test_fig2_gives_the_last_epoch_if_there_are_several(tmp_path, epochs, cells):
    run = config(learned=0.1, epochs=epochs)
    results = results_of(tmp_path, {"fig2": [run]}, lambda run: 60.0)
    (table,) = blocks_of(fig2.build, results, "fig2", tmp_path, Table)
    assert table.rows[0][3 : 3 + 2 * len(cells)] == [*cells, *["–"] * len(cells)]
    assert table.numeric == frozenset(range(2, len(table.columns)))
    assert len(table.rows[0]) == len(table.columns)
