"""The results of a folder as short Markdown tables, for a README."""

from __future__ import annotations

from collections.abc import Sequence

from maskedconv.console import duration
from maskedconv.report.build import notice
from maskedconv.report.claims import judge
from maskedconv.report.document import Table
from maskedconv.report.render import STATUSES, table
from maskedconv.report.results import Results


def tables(results: Results, items: Sequence[str]) -> str:
    """The origin of the runs, the scorecard, and tables of ``items`` (all planned ones if empty).

    Raises:
        ValueError: an item is not in the plan; the message lists the planned ones.
    """
    planned = {item.id: item.short_tables for item in results.items if item.short_tables}
    if unknown := [name for name in items if name not in planned]:
        there = ", ".join(planned)
        raise ValueError(f"item is {', '.join(unknown)}; expected items of the plan: {there}")
    scorecard = _scorecard(results)
    parts = [notice(results), _origin(results), *([table(scorecard)] if scorecard.rows else [])]
    for name, short_tables in planned.items():
        if name in items or not items:
            for found in short_tables(results.seed_groups(name)):
                parts += [f"**{found.caption}**", table(found)]
    return "\n\n".join(parts) + "\n"


def _origin(results: Results) -> str:
    runs = [run for run in results.runs().values() if run.row]
    rows = [run.row for run in runs if run.row]
    seeds = {run.config.seed for run in runs}
    data = dict.fromkeys(str(row.get("data_note") or "") for row in rows)
    devices = dict.fromkeys(str(row.get("device")) for row in rows)
    seconds = sum(row.get("seconds") or 0 for row in rows)
    facts = [
        f"Preset {results.plan.get('preset')}",
        f"{len(runs)} of {len(results.runs())} runs",
        f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}",
        *(note for note in data if note),
        *devices,
        *filter(None, [results.precision]),
        f"{duration(seconds, rough=True)} of training",
    ]
    return f"{'; '.join(facts)}. Accuracy: top-1 on the test images, %, best epoch."


def _scorecard(results: Results) -> Table:
    rows = [
        [verdict.claim.text, verdict.claim.source, STATUSES[verdict.status], verdict.summary]
        for verdict in judge(results)
        if verdict.status != "not run"
    ]
    return Table("Scorecard", ("claim", "source", "verdict", "cases"), rows)
