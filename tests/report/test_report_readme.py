"""The tables that the report writes for a README."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from report_samples import (
    config,
    load,
    results_of,
    row,
    runs_of,
    small_plan,
    small_top1,
    write_folder,
)

from maskedconv import papers, report
from maskedconv.report import short_tables as short
from maskedconv.report.document import Table
from maskedconv.runs.config import RunConfig


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


def test_short_cells_say_why_there_is_no_number_and_which_seeds_failed(tmp_path):
    one, two, three = (config("wrn_10_1", learned=p) for p in (0.1, 0.4, 0.7))
    seeds = [three.with_seed(seed) for seed in range(3)]
    out = write_folder(tmp_path, {"fig1": [one, two, *seeds]}, small_top1)
    failed = {"error": "out of memory", "error_type": "OutOfMemoryError"}
    lines = [row(one, None), row(two, None, **failed), row(seeds[0], None, **failed)]
    lines += [row(run, 50.0) for run in seeds[1:]]
    (out / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cells = [short.one(setting) for setting in load(out).seed_groups("fig1")]
    assert cells == ["diverged", "failed", "50.0 ± 0.0 (1 of 3 failed)"]


@pytest.mark.parametrize(
    "name", sorted(name for name, item in papers.ITEMS.items() if item.short_tables)
)
def test_short_tables_are_of_one_data_set_each(tmp_path, name):
    """Two data sets in one folder give the tables that each gives alone."""
    short_tables = papers.ITEMS[name].short_tables
    ours = runs_of(name)
    others = [replace(run, dataset="cifar10") for run in ours]

    def top1(run: RunConfig) -> float:
        return (50.0 if run.dataset == "cifar10" else 70.0) + 10 * run.learned

    def tables(runs: list[RunConfig]) -> list[Table]:
        settings = results_of(tmp_path, {name: runs}, top1).seed_groups(name)
        return sorted(short_tables(settings), key=lambda table: table.caption)

    alone = sorted([*tables(ours), *tables(others)], key=lambda table: table.caption)
    assert tables([*ours, *others]) == alone
    assert len({table.caption for table in alone}) == len(alone)


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


@pytest.mark.parametrize(
    ("tops", "text"),
    [
        ([50.0], "50.0"),
        ([50.0, 52.0], "51.0 ± 1.4 (2 of 4 not run)"),
        ([50.0, 52.0, None], "51.0 ± 1.4 (1 of 4 failed, 1 of 4 not run)"),
        ([50.0, 52.0, 50.0, 52.0], "51.0 ± 1.2"),
    ],
)
def test_seeds_that_were_not_run_are_said_beside_several_others(tmp_path, tops, text):
    """A single seed has no ±, as the notes say."""
    runs = [config("wrn_10_1", seed=seed) for seed in range(4)]
    out = write_folder(tmp_path, {"fig1": runs}, lambda run: tops[run.seed], skip=4 - len(tops))
    (setting,) = load(out).seed_groups("fig1")
    assert short.one(setting) == text
