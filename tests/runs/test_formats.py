"""plan.json and results.jsonl with missing, wrong or nested values, which errors must name."""

from __future__ import annotations

import copy
import json
import random
import re
from pathlib import Path

import pytest
from mutated_json import NESTED, mutated
from report_samples import config, load, row, write_folder

from maskedconv import report
from maskedconv.report.build import table_of_runs
from maskedconv.runs import Store, StoreError

COMMITTED = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*/plan.json"))


@pytest.fixture
def folder(tmp_path):
    """Runs of table 3, table 4's start and ensemble, and a failed run."""
    start = config("wrn_10_1", dataset="cifar10", learned=1.0, keep=True)
    ensemble = config("wrn_10_1", dataset="cifar10", learned=0.5, start=start.key, members=2)
    plan = {
        "table3": [config("wrn_10_1", learned=0.3, keep=True)],
        "table4": [start, ensemble],
        "fig1": [config(learned=0.4)],
    }
    write_folder(tmp_path, plan, lambda run: None if run.learned == 0.4 else 50.0)
    return tmp_path


def read_everything(folder):
    """Everything that a report reads from a folder, without drawing."""
    results = load(folder)
    table_of_runs(results)
    report.readme_tables(folder)
    return results


@pytest.mark.parametrize("plan", COMMITTED, ids=lambda plan: plan.parent.name)
def test_committed_results_are_read_without_complaint(plan):
    results = load(plan.parent)
    assert results.problems == []
    assert results.unplanned == 0
    done = [run for run in results.runs().values() if run.row]
    assert len(done) == len(Store(plan.parent).load().rows) > 0


def test_rows_with_one_value_changed(folder):
    draw = random.Random(0)
    path = folder / "results.jsonl"
    lines = path.read_text().splitlines()
    for number in range(160):
        place = number % len(lines)
        changed = mutated(json.loads(lines[place]), draw)
        path.write_text("\n".join([*lines[:place], json.dumps(changed), *lines[place + 1 :]]))
        results = read_everything(folder)
        assert len(results.problems) <= 1
        for problem in results.problems:
            assert problem.startswith(f"{path} line {place + 1}: ")
            assert problem.endswith("; line skipped")


def test_plans_with_one_value_changed(folder):
    draw = random.Random(0)
    path = folder / "plan.json"
    plan = json.loads(path.read_text())
    refused = fine = 0
    for _ in range(200):
        path.write_text(json.dumps(mutated(plan, draw)))
        try:
            read_everything(folder)
        except StoreError as error:
            refused += str(error).startswith(f"{path}: ")
        else:
            fine += 1
    assert refused > 120
    assert refused + fine == 200


def changed(value, *path_and_new):
    *path, last, new = path_and_new
    value = copy.deepcopy(value)
    holder = value
    for key in path:
        holder = holder[key]
    holder[last] = new
    return value


CONFIG = ("experiments", "fig1", "runs", 0, "config")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan | {"experiments": []}, r"experiments is \[\]; expected an object"),
        (lambda plan: {k: v for k, v in plan.items() if k != "preset"}, "preset is missing"),
        (lambda plan: changed(plan, "experiments", "fig1", {}), "experiments.fig1.runs is missing"),
        (lambda plan: changed(plan, "experiments", "fig1", "runs", [1]), r"runs\[0\] is 1"),
        (lambda plan: changed(plan, *CONFIG, []), r"config is \[\]; expected an object"),
        (lambda plan: changed(plan, *CONFIG, "milestones", 5), r"config.milestones is 5"),
        (lambda plan: changed(plan, *CONFIG, "milestones", NESTED), r"config.milestones\[0\] is"),
        (lambda plan: changed(plan, *CONFIG, "lr", 10**400), "config.lr is .*a finite number"),
        (lambda plan: changed(plan, *CONFIG, "lr", 0.2), "key is '.*'; expected .*, the hash"),
        (lambda plan: changed(plan, *CONFIG, "options", [["a"]]), r"config.options\[0\] is"),
        (lambda plan: changed(plan, *CONFIG, "dataset", "svhn"), "config.dataset is 'svhn'"),
        (
            lambda plan: changed(plan, *CONFIG, "trained", "x"),
            "config is not a valid run configuration.*trained",
        ),
        (lambda plan: plan | {"preset": "\ud800"}, "preset is .*a valid Unicode string"),
    ],
)
def test_damaged_plans_name_the_place(folder, change, message):
    path = folder / "plan.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(StoreError, match=rf"plan\.json: .*{message}"):
        report.write(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a": NaN}', "1e"])
def test_text_that_is_no_plan(folder, text):
    (folder / "plan.json").write_text(text)
    with pytest.raises(StoreError, match=r"plan\.json: .*(nested too deeply|not valid JSON)"):
        report.write(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": None}, "history is None; expected a list"),
        ({"history": [{"epoch": 1}]}, r"history\[0\].test_top1 is missing"),
        ({"history": [{"epoch": 1, "test_top1": "x"}]}, r"history\[0\].test_top1 is 'x'"),
        ({"best_top1": True}, "best_top1 is True; expected a finite number"),
        ({"versions": {"torch": 2}}, "versions.torch is 2; expected a string"),
        ({"stored_bytes": {"members": [1]}}, "stored_bytes.shared is missing"),
        ({"first_layer": {"shape": [2, 1, 1, 1], "learned": 1, "values": [0.5]}}, "has 1 values"),
        ({"layers": NESTED}, r"layers\[0\] is .*; expected an object"),
        ({"config": NESTED}, "config is .*; expected an object"),
        ({"key": "0" * 16}, "key is '0000000000000000'; expected"),
        ({"status": "perhaps"}, "status is 'perhaps'; expected 'done' or 'failed'"),
    ],
)
def test_damaged_rows_name_the_place(tmp_path, change, message):
    run = config("wrn_10_1", learned=0.1)
    write_folder(tmp_path, {"fig1": [run]}, lambda run: 50.0)
    good, bad = json.dumps(row(run, 50.0)), json.dumps(row(run, 50.0) | change)
    (tmp_path / "results.jsonl").write_text(f"{bad}\n{'[' * 100_000}\n{good}\n")
    results = read_everything(tmp_path)
    assert [each.done for each in results.runs().values()] == [True]
    first, second = results.problems
    assert re.search(rf"results\.jsonl line 1: .*{message}", first)
    assert "line 2: the JSON is nested too deeply; line skipped" in second
