"""The report compares a run only with a number of the paper for the same run."""

from __future__ import annotations

import json
from dataclasses import replace

from report_samples import blocks_of, config, load, results_of, row, small_top1, write_folder

from maskedconv.papers.rosenfeld2018 import (
    author_runs,
    fig2,
    fig5,
    printed,
    table1,
    table2,
    table3,
    table4,
)
from maskedconv.papers.rosenfeld2018.author_runs import comparison
from maskedconv.papers.rosenfeld2018.table1 import table1_table
from maskedconv.report.build import notice
from maskedconv.report.document import Table


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
    assert table.columns[-2] == "paper (not comparable)"
    assert table.rows[0][-2:] == ["76.32", "wrn_28_4, CIFAR-10"]


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


def test_table3_is_compared_only_if_all_its_runs_are_whole(tmp_path):
    """The first setting is not run, and the second one had a part of the images."""
    fields = {"dataset": "tiny-imagenet", "epochs": 45, "optimizer": "yellowfin"}
    runs = [config("wrn_28_4", learned=learned, **fields) for learned in (0.1, 0.4)]
    out = write_folder(tmp_path, {"table3": runs}, lambda run: 21.0)
    note = "Tiny-ImageNet; 6,000 of 100,000 training images"
    (out / "results.jsonl").write_text(json.dumps(row(runs[1], 30.0, data_note=note)) + "\n")
    (table,) = blocks_of(table3.build, load(out), "table3", tmp_path, Table)
    assert "not comparable" in table.caption


def test_the_plans_note_on_the_images_counts_until_a_run_is_finished(tmp_path):
    run = config("wrn_28_4", dataset="cifar10", epochs=10)
    notes = {"cifar10": "CIFAR-10; 2,000 of 10,000 test images"}
    for skip, images in ((1, 2_000), (0, 10_000)):
        out = write_folder(tmp_path, {"fig1": [run]}, lambda _: 50.0, skip=skip, data_notes=notes)
        (setting,) = load(out).seed_groups("fig1")
        assert (setting.whole_data, setting.test_images) == (images == 10_000, images)


def test_the_papers_network_on_fewer_images_is_not_called_another_one(tmp_path):
    """The short preset has fewer images."""
    run = config("densenet_bc_100_12", dataset="cifar10", epochs=2, subset=500, learned=0.1)
    plan = {"fig2": [run], "table1": [replace(run, learned=1.0, trained="bn")], "table2": [run]}
    results = results_of(tmp_path, plan, lambda run: 50.0)
    for item, build in (("fig2", fig2.build), ("table1", table1.build), ("table2", table2.build)):
        table = blocks_of(build, results, item, tmp_path, Table)[0]
        assert any("not comparable" in column for column in table.columns)
        assert not any("other network" in column for column in table.columns)


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


def test_fig5_shows_the_authors_full_runs_where_nothing_is_comparable(tmp_path):
    runs = [config("wrn_10_2", learned=0.1), config("densenet_bc_16_12", learned=1)]
    results = results_of(tmp_path, {"fig5": runs}, lambda run: 60.0)
    tables = blocks_of(fig5.build, results, "fig5", tmp_path, Table)
    assert [(row[0], row[3]) for row in tables[-1].rows] == [
        ("densenet_bc_100_12, CIFAR-10", "85.48"),
        ("wrn_28_10, CIFAR-10", "94.12"),
    ]


def test_fig5_of_fewer_epochs_shows_the_authors_full_runs(tmp_path):
    """Their first epochs are not shown, although one of ours equals each."""
    run = config("wrn_28_10", dataset="cifar10", learned=0.1)
    for epochs, caption in ((30, "The authors' full runs"), (200, "Comparison")):
        runs = [replace(run, epochs=epochs), replace(run, model="densenet_bc_100_12")]
        results = results_of(tmp_path / str(epochs), {"fig5": runs}, lambda run: 60.0)
        table = blocks_of(fig5.build, results, "fig5", tmp_path, Table)[-1]
        assert table.caption.startswith(caption)
        assert not any("epoch" in cell for row in table.rows for cell in row)


def test_table4_beside_the_paper(tmp_path):
    start = config("densenet_bc_100_12", dataset="cifar10", epochs=1, keep=True)
    run = replace(start, keep=False, start=start.key, members=5, learned=0.4)
    out = write_folder(tmp_path, {"table4": [start, run]}, small_top1)
    lines = [row(start, 60.0), row(run, 70.0, ensemble_top1=73.0)]
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (table,) = blocks_of(table4.build, load(out), "table4", tmp_path, Table)
    assert table.rows[0][-2:] == ["71 / 73.54", "−1.0 / −0.5"]
