"""The items of the report: their tables and panels, and what is comparable with the paper."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.figure
import pytest
from report_samples import config, load, results_of, row, small_plan, small_top1, write_folder

from maskedconv import report
from maskedconv.papers.rosenfeld2018 import (
    author_runs,
    fig4,
    fig5,
    fig6,
    printed,
    table2,
    table3,
    table4,
)
from maskedconv.papers.rosenfeld2018.author_runs import comparison
from maskedconv.papers.rosenfeld2018.ensembles import all_parameters, stored
from maskedconv.papers.rosenfeld2018.table1 import table1_table
from maskedconv.report import curves
from maskedconv.report.build import notice
from maskedconv.report.document import Figure, Table, Text
from maskedconv.report.learned import learned_table
from maskedconv.report.results import Results
from maskedconv.report.tables import networks
from maskedconv.runs.config import RunConfig


def test_the_authors_runs_are_read_whole():
    runs = author_runs.author_runs()
    assert len(runs) == 142
    counts = {
        run.learned_parameters
        for run in runs
        if run.model == "densenet_bc_100_12"
        and (run.learned, type(run.learned), run.dataset) == (1, int, "cifar10")
        and run.slice_dim == 0
    }
    assert counts == {57_529}


def test_compares_only_the_same_run(tmp_path):
    run = config("densenet_bc_100_12", dataset="cifar10", learned=0.1, epochs=1)
    settings = {
        "same": run,
        "other data": replace(run, dataset="digits"),
        "fewer images": replace(run, subset=100),
        "narrower": replace(run, options=(("width", 0.5),)),
        "another rate": replace(run, lr=0.01),
        "all filters": replace(run, learned=1.0),
    }
    found = {}
    for name, changed in settings.items():
        results = results_of(tmp_path / name, {"fig2": [changed]}, lambda run: 48.53)
        found[name] = [
            (pair.theirs.run, pair.theirs.top1)
            for pair in author_runs.compare(results.seed_groups("fig2"))
        ]
    assert found.pop("same") == [("1 epoch", 48.57), ("epoch 1 of 10", 53.78)]
    assert found.pop("all filters") == [("epoch 1 of 10", 58.46)]
    assert not any(found.values())


def test_comparison_shows_the_difference(tmp_path):
    run = config("wrn_28_4", dataset="cifar100", learned=1, epochs=10)
    results = results_of(tmp_path, {"fig1": [run]}, lambda run: 15.06)
    (table,) = comparison(results.seed_groups("fig1"))
    assert table.rows[0][-3:] == ["15.06", "14.96", "+0.10"]


def test_table1_gives_a_difference_only_to_the_same_network(tmp_path):
    ours = config("wrn_28_4", dataset="cifar10", epochs=10, trained="block2")
    small = replace(ours, model="wrn_10_1")
    same = results_of(tmp_path / "a", {"table1": [ours]}, lambda run: 75.0).seed_groups("table1")
    other = results_of(tmp_path / "b", {"table1": [small]}, lambda run: 75.0).seed_groups("table1")
    assert table1_table(same, True, "").rows[0][-2:] == ["76.32", "−1.32"]
    table = table1_table(other, False, "")
    assert table.columns[-2] == "paper (other network)"
    assert table.rows[0][-2:] == ["76.32", "wrn_28_4, CIFAR-10"]


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
    assert rows[0][4:] == ["30.00", "30.00", "diverged", "diverged"]
    assert rows[1][4:] == ["40.00", "40.00", "20.00", "20.00"]


def test_an_excerpt_of_the_images_is_not_compared(tmp_path):
    run = config(
        "wrn_28_4",
        dataset="tiny-imagenet",
        epochs=45,
        learned=0.1,
        optimizer="yellowfin",
        keep=True,
    )
    out = write_folder(tmp_path, {"table3": [run]}, lambda run: 21.0, preset="paper")
    (whole,) = load(out).seed_groups("table3")
    assert printed.comparable(whole, "wrn_28_4", "tiny-imagenet", 45)
    note = "Tiny-ImageNet; 6,000 of 100,000 training images"
    (out / "results.jsonl").write_text(json.dumps(row(run, 21.0, data_note=note)) + "\n")
    (part,) = load(out).seed_groups("table3")
    assert not printed.comparable(part, "wrn_28_4", "tiny-imagenet", 45)
    assert "part of the images" in notice(load(out))


def test_an_optimizer_or_a_start_of_its_own_is_not_compared(tmp_path):
    run = config("densenet_bc_100_12", dataset="cifar10", learned=0.1, epochs=10)
    changes = ({"optimizer": "adam"}, {"start": "0" * 16, "members": 5})
    for number, change in enumerate(changes):
        results = results_of(
            tmp_path / str(number), {"fig1": [replace(run, **change)]}, lambda run: 50.0
        )
        assert not author_runs.compare(results.seed_groups("fig1"))


def test_table2_beside_the_paper(tmp_path):
    run = config("wrn_28_10", dataset="cifar10", epochs=200, learned=0.1, frozen="zero")
    reference = replace(run, learned=1.0, frozen="random", dropout=0.3)
    results = results_of(tmp_path, {"table2": [run, reference]}, lambda run: 92.0)
    (table,) = blocks_of(table2.build, results, "table2", tmp_path, Table)
    assert table.columns[-2:] == ("paper", "difference")
    assert [row[-2:] for row in table.rows] == [["91.53", "+0.47"], ["96.10 †", "−4.10"]]


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
    assert [row[5:] for row in table.rows] == [["60.00", "45.50", "+14.50"]]


def test_fig5_shows_the_authors_full_runs_where_nothing_is_comparable(tmp_path):
    runs = [config("wrn_10_2", learned=0.1), config("densenet_bc_16_12", learned=1)]
    results = results_of(tmp_path, {"fig5": runs}, lambda run: 60.0)
    tables = blocks_of(fig5.build, results, "fig5", tmp_path, Table)
    assert [(row[0], row[3]) for row in tables[-1].rows] == [
        ("densenet_bc_100_12, CIFAR-10", "85.48"),
        ("wrn_28_10, CIFAR-10", "94.12"),
    ]


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
    fig6.filters_panel(first)(axes)
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


def test_table4_beside_the_paper(tmp_path):
    start = config("densenet_bc_100_12", dataset="cifar10", epochs=1, keep=True)
    run = replace(start, keep=False, start=start.key, members=5, learned=0.4)
    out = write_folder(tmp_path, {"table4": [start, run]}, small_top1)
    lines = [row(start, 60.0), row(run, 70.0, ensemble_top1=73.0)]
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (table,) = blocks_of(table4.build, load(out), "table4", tmp_path, Table)
    assert table.rows[0][-2:] == ["71 / 73.54", "−1.0 / −0.5"]


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


def test_readme_tables_are_whole_and_say_what_they_are_of(tmp_path):
    out = write_folder(tmp_path, small_plan(seeds=1), small_top1)
    text = report.readme_tables(out)
    assert text.startswith("This is the small preset")
    assert "1 seed;" in text
    for item in ("Figure 1", "Figure 2", "Figure 4", "Figure 5", "Table 1", "Table 4"):
        assert f"**{item}" in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for block in tables:
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1
    (fig1,) = (block for block in tables if "| k = 1 |" in block and "alexnet" in block)
    assert "| 72.7 (48.0) |" in next(line for line in fig1.splitlines() if "wrn" in line)


def test_readme_tables_of_some_items_only(tmp_path):
    out = write_folder(tmp_path, small_plan(seeds=1), small_top1)
    text = report.readme_tables(out, ["table1"])
    assert "**Table 1" in text
    assert "**Figure" not in text
    fig2 = report.readme_tables(out, ["fig2"])
    assert "| k = 1, authors | 50.9 (28.7) | 44.5 (10.0) | – | – |" in fig2
    with pytest.raises(ValueError, match="item is fig9; expected items of the plan: fig1"):
        report.readme_tables(out, ["fig9"])


def test_readme_on_the_command_line(tmp_path):
    out = write_folder(tmp_path, {"table1": [config(trained="bn")]}, small_top1)
    command = [sys.executable, "-m", "maskedconv.report", "--out", str(out)]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)

    done = run("--readme", "table1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == report.readme_tables(out, ["table1"])
    assert not (out / "report.html").exists()
    refused = run("table1")
    assert refused.returncode == 2
    assert "--readme" in refused.stderr


def blocks_of(build, results: Results, item: str, folder: Path, kind: type) -> list:
    """The blocks of one kind in a section."""
    return [block for block in build(results.seed_groups(item), folder) if isinstance(block, kind)]
