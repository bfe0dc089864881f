"""The end of the report: notes, curves, failures, configuration, environment and commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from maskedconv.console import duration
from maskedconv.report import curves
from maskedconv.report.document import Block, Command, Section, Table, Text
from maskedconv.report.results import Results, Run
from maskedconv.report.tables import NOTHING
from maskedconv.runs.parts import options_text

# The options of reproduce that take no value.
FLAGS = {"--download", "--compile", "--no-report", "--list", "--dry-run", "--verbose"}
# Fields that the tables of results already show.
_SHOWN = {"learned", "slice_dim", "frozen", "trained", "seed"}


def sections(results: Results, folder: Path, out: Path) -> list[Section]:
    """The sections after the items."""
    drawn = curves.build(results, folder)
    return [
        Section("notes", "How to read these numbers", _notes(results)),
        *([Section("curves", "Learning curves", drawn)] if drawn else []),
        Section("failed", "Failed and missing runs", _failed(results)),
        Section("configuration", "Configuration", _configuration(results)),
        Section("environment", "Environment", _environment(results)),
        Section("commands", "Commands", _commands(results, out)),
    ]


def _notes(results: Results) -> list[Block]:
    notes = [
        "Accuracy is top-1 on the test images in percent. It is the accuracy of "
        "the best epoch. The best epoch is chosen on the same test images, so the value is "
        "slightly optimistic; most tables and results.csv give the accuracy of the last epoch as "
        "well. ± is the sample standard deviation over seeds; an accuracy of ours without it is "
        "that of one seed.",
        *(note for paper in results.papers for note in paper.notes),
    ]
    rows = [run.row for run in results.runs().values() if run.row]
    planned = (results.plan.get("data_notes") or {}).values()
    sources = [*planned, *(row.get("data_note") for row in rows)]
    notes += [f"Data: {note}" for note in dict.fromkeys(sources) if note]
    return [Text(note) for note in notes]


def _failed(results: Results) -> list[Block]:
    runs = list(results.runs().values())
    blocks: list[Block] = []
    if failed := [run for run in runs if run.failed]:
        rows = [[run.config.label(), str(len(run.history)), run.error] for run in failed]
        columns = ("run", "epochs done", "why")
        blocks.append(Table(f"{len(failed)} failed", columns, rows, frozenset({1})))
    if missing := [run for run in runs if run.row is None]:
        rows = [[run.config.label()] for run in missing]
        blocks.append(Table(f"{len(missing)} planned, not run", ("run",), rows))
    blocks += [Text(f"Unreadable: {problem}.") for problem in results.problems]
    if results.unplanned:
        blocks.append(
            Text(f"{results.unplanned} results in this folder belong to no planned experiment.")
        )
    return blocks or [Text("Every planned run is finished.")]


def _configuration(results: Results) -> list[Block]:
    found = [_flat(run) for run in results.runs().values()]
    distinct = list({tuple(values.items()): values for values in found}.values())
    if not distinct:
        return [Text("Nothing is planned.")]
    varying = [name for name in distinct[0] if len({values[name] for values in distinct}) > 1]
    constant = [name for name in distinct[0] if name not in varying]
    same = "; ".join(f"{name}: {distinct[0][name]}" for name in constant)
    rows = [[values[name] for name in varying] for values in distinct]
    blocks: list[Block] = [Text(f"Common to all runs: {same}.")]
    return [*blocks, Table("Differs between runs", varying, rows)] if varying else blocks


def _flat(run: Run) -> dict[str, str]:
    values = run.config.to_json()
    values["options"] = options_text(run.config.options)
    values["method_options"] = options_text(run.config.method_options)
    values["milestones"] = ", ".join(str(epoch) for epoch in run.config.milestones)
    values["start"] = "a run of this folder" if run.config.start else ""
    return {
        name: NOTHING if value in (None, "") else str(value)
        for name, value in values.items()
        if name not in _SHOWN
    }


def _environment(results: Results) -> list[Block]:
    rows = [run.row for run in results.runs().values() if run.row]
    if not rows:
        return [Text("Nothing was run.")]
    seconds = sum(row.get("seconds") or 0 for row in rows)
    memory = max(row.get("peak_memory_bytes") or 0 for row in rows)
    table = [
        ["runs", str(len(rows))],
        ["total time", duration(seconds, rough=True)],
        ["largest peak memory", f"{memory / 2**20:,.0f} MiB"],
        ["device", _distinct(row.get("device") for row in rows)],
    ]
    names = dict.fromkeys(name for row in rows for name in row.get("versions") or {})
    table += [
        [name, _distinct((row.get("versions") or {}).get(name) for row in rows)] for name in names
    ]
    return [Table("Environment of the runs", ("name", "value"), table)]


def _distinct(values: Iterable[Any]) -> str:
    texts = dict.fromkeys(str(value) for value in values if value is not None)
    return "; ".join(texts) or NOTHING


def _commands(results: Results, out: Path) -> list[Block]:
    redraw = f"python -m maskedconv.report --out {shlex.quote(str(out))}"
    blocks: list[Block] = [Command(redraw, "Draws this report again")]
    ids = [item.id for paper in results.papers for item in paper.items]
    for name, entry in results.plan["experiments"].items():
        command = entry.get("command") or results.plan.get("command")
        if command:
            text = only(name, str(command), ids)
            blocks.append(Command(text, f"Executes the missing runs of {name} and draws it again"))
    return blocks


def _takes_value(word: str) -> bool:
    """Whether the next word is the value of this one."""
    return word.startswith("--") and "=" not in word and word not in FLAGS


def only(experiment: str, command: str, ids: Iterable[str]) -> str:
    """``command`` with ``experiment`` in place of the ``ids`` that it names.

    The value of an option is no id, even if it is the same word.
    """
    named, words = {"all", *ids}, shlex.split(command)
    places = [i for i, word in enumerate(words) if word.endswith("reproduce")]
    place = places[0] + 1 if places else len(words)
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if word not in named or _takes_value(before)
    ]
    return shlex.join([*kept[:place], experiment, *kept[place:]])
