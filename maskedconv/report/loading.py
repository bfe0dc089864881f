"""Reads the plan and the rows of a folder, or the rows alone, for the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskedconv.report.item import Paper
from maskedconv.report.measured import pooled_sd
from maskedconv.report.results import Results, Run, SeedGroup
from maskedconv.runs.config import RunConfig
from maskedconv.runs.row import Row
from maskedconv.runs.store import Loaded, Store

# The experiment with the runs of a folder without a plan.
RUNS = "runs"


def load(out: Path, papers: Sequence[Paper[Any]]) -> Results:
    """Reads ``plan.json`` and ``results.jsonl`` of a folder with experiments of ``papers``.

    A folder of ``train`` has no plan: all its runs are the experiment ``RUNS`` of no paper.

    Raises:
        FileNotFoundError: there is neither a plan nor a run.
        StoreError: the folder or the plan cannot be read; names the place in the plan.
    """
    store = Store(out)
    plan, loaded = store.read_plan(), store.load()
    if plan is None:
        return _without_plan(store, loaded)
    experiments = {
        name: _seed_groups(entry, loaded.rows) for name, entry in plan["experiments"].items()
    }
    pooled = pooled_sd(group for groups in experiments.values() for group in groups)
    notes = plan.get("data_notes") or {}
    experiments = {
        name: [
            replace(group, pooled_sd=pooled, planned_note=notes.get(group.config.dataset, ""))
            for group in groups
        ]
        for name, groups in experiments.items()
    }
    runs = [run for entry in plan["experiments"].values() for run in entry["runs"]]
    planned = {run.get("same_as", run["key"]) for run in runs} | {run["key"] for run in runs}
    unplanned = len(loaded.rows.keys() - planned)
    there = [p for p in papers if any(item.id in experiments for item in p.items)]
    return Results(plan, experiments, loaded.problems, unplanned, tuple(there or papers))


def _without_plan(store: Store, loaded: Loaded) -> Results:
    if not loaded.rows:
        raise FileNotFoundError(
            f"{store.plan} does not exist, and {store.results} has no run; run "
            f"`python -m maskedconv.reproduce --out {store.out}` first, or maskedconv.train"
        )
    runs = [{"key": key, "config": row["config"]} for key, row in loaded.rows.items()]
    experiments = {RUNS: _seed_groups({"runs": runs}, loaded.rows)}
    plan = {"experiments": {RUNS: {"title": "Training runs", "runs": runs}}}
    return Results(plan, experiments, loaded.problems)


def _seed_groups(entry: dict[str, Any], rows: dict[str, Row]) -> list[SeedGroup]:
    grouped: dict[str, list[Run]] = {}
    for planned in entry["runs"]:
        config = RunConfig.from_json(planned["config"])
        # Each seed of an ensemble starts from another run.
        same_but_seed = {**config.with_seed(0).to_json(), "start": bool(config.start)}
        name_of_setting = json.dumps(same_but_seed, sort_keys=True)
        trained = planned.get("same_as", planned["key"])
        grouped.setdefault(name_of_setting, []).append(Run(config, rows.get(trained), trained))
    return [SeedGroup(tuple(runs)) for runs in grouped.values()]
