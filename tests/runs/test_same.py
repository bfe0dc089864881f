"""Runs that train the same network by construction are trained once and reported as equal."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from commands import call, keys, time_nothing
from report_samples import config, preset_of, row

from maskedconv import reproduce
from maskedconv.nn import MaskedConv2d
from maskedconv.papers import ITEMS
from maskedconv.report import write
from maskedconv.runs import Store
from maskedconv.runs.execute import build_model
from maskedconv.runs.same import trained_for
from maskedconv.runs.store import Loaded

FIG2 = ("fig2", "--epochs", "1", "--subset", "2", "--device", "cpu", "--parallel", "1")


def equal(one, other, **changes):
    runs = [config("densenet_bc_16_12", **fields) for fields in (one, other)]
    runs = [replace(run, **changes) for run in runs]
    return trained_for(runs, Loaded())[runs[1].key] is runs[0]


ROWS = {"slice_dim": 2, "frozen": "random"}
COLUMNS = {"slice_dim": 3, "frozen": "random"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({**ROWS, "learned": 0.1}, {**ROWS, "learned": 0.4}, True),
        ({**ROWS, "learned": 0.1}, {**ROWS, "learned": 1}, True),
        ({**ROWS, "learned": 0.7}, {**ROWS, "learned": 2}, True),
        ({**ROWS, "learned": 0.7}, {**ROWS, "learned": 0.4}, False),
        ({**ROWS, "learned": 0.1}, {**COLUMNS, "learned": 0.1}, False),
        ({**ROWS, "learned": 0.1}, {**ROWS, "learned": 0.1, "frozen": "zero"}, False),
        ({**ROWS, "learned": 5}, {**COLUMNS, "learned": 5, "frozen": "zero"}, True),
        ({**ROWS, "learned": 5}, {"learned": 1.0}, True),
        ({"learned": 1}, {"learned": 1.0}, False),
        ({"learned": 0.1}, {"learned": 0.4}, False),
        ({"learned": 99}, {"learned": 98}, False),
        ({**ROWS, "learned": 1, "seed": 1}, {**ROWS, "learned": 0.1}, False),
    ],
)
def test_what_is_one_network(one, other, same):
    assert equal(one, other) is same
    if "seed" not in one:
        # Stored weights are found by the run's own key.
        assert not equal(one, other, keep=True)


def test_equal_networks_have_equal_values_learned_and_frozen():
    """For each run of figure 2 that shares a training, all layers have the same slices."""
    runs = ITEMS["fig2"].runs(preset_of("quick"))
    trained = trained_for(runs, Loaded())
    others = [run for run in runs if trained[run.key] is not run]
    assert (len(runs), len(others)) == (32, 11)
    for run in others:
        pair = [build_model(r, 10, (1, 8, 8)) for r in (run, trained[run.key])]
        for ours, theirs in zip(*(list(model.modules()) for model in pair), strict=True):
            if isinstance(ours, MaskedConv2d):
                assert torch.equal(ours.weight, theirs.weight)
                assert ours.learned.shape == theirs.learned.shape or (
                    ours.num_learned * theirs.num_learned
                    and ours.learned.numel() == theirs.learned.numel() == ours.weight.numel()
                )


def test_the_papers_presets():
    for preset, networks in (("quick", 21), ("paper", 29)):
        runs = ITEMS["fig2"].runs(preset_of(preset))
        assert len({run.key for run in trained_for(runs, Loaded()).values()}) == networks


def test_finished_rows_are_taken_whichever_of_the_equals_they_are_of():
    runs = [config(learned=learned, **ROWS) for learned in (0.1, 0.4, 1)]
    none = trained_for(runs, Loaded())
    assert [none[run.key] for run in runs] == [runs[0]] * 3
    last = trained_for(runs, Loaded({runs[2].key: row(runs[2], 50.0)}))
    assert [last[run.key] for run in runs] == [runs[2]] * 3
    every = trained_for(runs, Loaded({run.key: row(run, 50.0) for run in runs}))
    assert [every[run.key] for run in runs] == runs
    failed = row(runs[2], None, error_type="MemoryError")
    assert trained_for(runs, Loaded({runs[2].key: failed}))[runs[0].key] is runs[0]


def test_planning_draws_nothing_from_the_callers_generator():
    from maskedconv.runs import same

    same._weight_shapes.cache_clear()
    before = torch.get_rng_state()
    trained_for([config(learned=0.3), config(learned=0.2)], Loaded())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="module")
def figure2(tmp_path_factory):
    out = tmp_path_factory.mktemp("fig2")
    return out, call(reproduce, *FIG2, "--out", out)


def test_each_is_trained_once_and_told(figure2, tmp_path, monkeypatch):
    time_nothing(monkeypatch)
    out, result = figure2
    assert result.exit_code == 0, result.output
    assert "11 of 32 runs learn the same slices of the same network as another" in result.stderr
    assert len(keys(out)) == 21
    assert "[21/21]" in result.stderr
    listed = call(reproduce, "fig2", "--list", "--verbose").stdout
    assert "32 runs, 11 of them the same network as another" in listed
    assert listed.count("(the same network as ") == 11
    assert "32 runs, 21 networks to train" in listed
    again = call(reproduce, *FIG2, "--no-report", "--out", out)
    assert "21 of 21 runs are finished in" in again.stderr
    assert len(keys(out)) == 21
    dry = call(reproduce, *FIG2, "--dry-run", "--out", tmp_path)
    assert dry.stdout.splitlines()[-1].split()[:3] == ["total", "32", "21"]


def test_the_report_shows_them_as_one(figure2):
    out, _ = figure2
    text = (out / "report.md").read_text()
    assert "Runs: 21 done, 0 failed, 0 not run; the figures show 32 settings" in text.replace(
        "*", ""
    )
    assert "share one run: p = 0.1, p = 0.4, k = 1 (kernel rows, random); " in text
    table = (out / "results.csv").read_text().splitlines()
    assert len(table) == 33
    names = table[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=False)) for line in table[1:]]
    assert len({found["trained_as"] for found in rows}) == 21
    assert all(found["status"] == "done" for found in rows)


def test_a_folder_from_before_is_read_and_kept(tmp_path):
    """In such a folder, each equal run has its own row, and the plan has no equal runs."""
    runs = ITEMS["fig2"].runs(preset_of("quick", epochs=1, subset=2))
    store = Store(tmp_path)
    store.prepare()
    for number, run in enumerate(runs):
        store.append(row(run, 50.0 + number, data_note=None))
    result = call(reproduce, *FIG2, "--no-report", "--out", tmp_path)
    assert "32 of 32 runs are finished in" in result.stderr
    assert "same slices" not in result.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert not any("same_as" in run for run in plan["experiments"]["fig2"]["runs"])
    write(tmp_path)
    assert "32 done, 0 failed" in (tmp_path / "report.md").read_text()
    assert len(keys(tmp_path)) == 32


def test_items_that_share_runs_are_no_equals():
    """Figure 3 shows figure 1's runs: the same keys, without equal runs."""
    listed = call(reproduce, "fig1", "fig3", "fig2", "--list").stdout
    assert "(77 runs)" in listed
    assert "(77 runs, 77 of them above)" in listed
    assert "(32 runs, 11 of them the same network as another)" in listed
    plan = {item: ITEMS[item].runs(preset_of("quick")) for item in ("fig1", "fig3")}
    trained = trained_for([run for runs in plan.values() for run in runs], Loaded())
    assert all(trained[run.key] == run for runs in plan.values() for run in runs)
