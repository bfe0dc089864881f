"""Assembles the report and writes its files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskedconv.console import duration
from maskedconv.data.catalogue import JPEG_COPY
from maskedconv.io import replace_file
from maskedconv.report import appendix, single_runs
from maskedconv.report.claims import judge
from maskedconv.report.copies import copied, with_copies
from maskedconv.report.document import Block, Document, Figure, Scorecard, Section, Text
from maskedconv.report.item import Paper
from maskedconv.report.loading import RUNS
from maskedconv.report.measured import SEED_SPREAD, seed_spread
from maskedconv.report.render import html, markdown
from maskedconv.report.results import Results, dataset_title, family, network_label
from maskedconv.report.wall_time import wall_seconds
from maskedconv.runs.parts import options_text


def build(results: Results, out: Path) -> Path:
    """Writes figures, ``results.csv``, ``report.md`` and ``report.html``; returns the last."""
    folder = out / "figures"
    folder.mkdir(exist_ok=True)
    document = Document(
        title="; ".join(paper.title for paper in results.papers) or "Training runs",
        notice=notice(results),
        facts=_facts(results),
        sections=[
            *(section for paper in results.papers for section in _paper(results, paper, folder)),
            *single_runs.sections(results.seed_groups(RUNS), folder),
            *appendix.sections(results, folder, out),
        ],
        sources=[paper.source for paper in results.papers],
    )
    replace_file(out / "results.csv", table_of_runs(results).encode())
    replace_file(out / "report.md", markdown(document).encode())
    page = out / "report.html"
    replace_file(page, html(document).encode())
    return page


def _paper(results: Results, paper: Paper[Any], folder: Path) -> Iterator[Section]:
    """The scorecard of a paper, and a section for each of its planned figures and tables.

    If not all of them are planned, they come first, and the scorecard has their claims only. Panels
    are written to ``folder``. A figure without panels, whose runs are missing, is left out.
    """
    others = [item.id for item in paper.items if item.id not in results.experiments]
    sections = list(_items(results, paper, folder))
    yield from sections if others else ()
    yield from _scorecard(results, paper, others)
    yield from () if others else sections


def _scorecard(results: Results, paper: Paper[Any], others: list[str]) -> Iterator[Section]:
    """The claims of the planned items; ``others`` are the ids of the items that are not planned."""
    verdicts = judge(results, paper)
    decided = [verdict for verdict in verdicts if verdict.experiment not in others]
    name, title = "scorecard", "Scorecard of the paper's claims"
    if len(results.papers) > 1:
        name, title = f"{name}-{paper.items[0].id}", f"{paper.title}: scorecard"
    first = paper is results.papers[0]
    blocks: list[Block] = [Text(_criteria(results))] if first and decided else []
    blocks += [Scorecard(decided)] if decided else []
    if left := len(verdicts) - len(decided):
        blocks.append(
            Text(
                f"{left} more claims belong to items that were not asked for: {', '.join(others)}."
            )
        )
    if blocks:
        yield Section(name, title, blocks)


def _items(results: Results, paper: Paper[Any], folder: Path) -> Iterator[Section]:
    for item in paper.items:
        if item.id in results.experiments:
            title = f"{item.reference}: {results.title(item.id)}"
            settings = results.seed_groups(item.id)
            blocks = item.build(settings, folder)
            drawn = [one for one in blocks if not isinstance(one, Figure) or one.pictures]
            drawn = [with_copies(one, settings) for one in drawn]
            yield Section(item.id, title, drawn)


def notice(results: Results) -> str:
    """The report's first line: whether its numbers are comparable with the paper's."""
    preset = results.plan.get("preset")
    data = _datasets(results)
    if results.precision not in ("", "float32"):
        data += f", in {results.precision}"
    if not results.papers:
        return f"Single runs of maskedconv.train on {data}."
    if preset == "quick":
        return (
            f"This is the small preset: small networks of the paper's families on {data}. "
            "It is not comparable with the paper."
        )
    cuts = _cuts(results)
    if preset == "paper" and not cuts:
        return f"This is the paper's preset: its networks, settings and epochs on {data}."
    what = ", ".join([f"The {preset} preset: the paper's networks on {data}", *cuts])
    return f"{what}. Numbers compare with the paper's only where a table gives a difference."


def _cuts(results: Results) -> list[str]:
    longer = [
        setting.config.epochs - printed
        for item in results.items
        for setting in results.seed_groups(item.id)
        if (printed := item.printed_epochs(setting.config))
    ]
    cuts = ["trained for fewer epochs"] if min(longer, default=0) < 0 else []
    cuts += ["trained for more epochs"] if max(longer, default=0) > 0 else []
    subsets = {run.config.subset for run in results.runs().values() if run.config.subset}
    if not all(s.whole_data or s.config.subset for s in results.all_seed_groups()):
        cuts.append("on a part of the images")
    if subsets:
        cuts.append(f"on {' or '.join(map(str, sorted(subsets)))} training images per class")
    return cuts


def _datasets(results: Results) -> str:
    names = dict.fromkeys(run.config.dataset for run in results.runs().values())
    texts = {"digits": "scikit-learn's 8×8 handwritten digits"}
    copies = copied(results.all_seed_groups())
    titles = (
        texts.get(name, dataset_title(name)) + f" {JPEG_COPY}" * (name in copies) for name in names
    )
    return " and ".join(titles) or "no data"


def _criteria(results: Results) -> str:
    pooled = next((setting.pooled_sd for setting in results.all_seed_groups()), None)
    between = (
        "as no setting has several seeds, this is assumed"
        if pooled is None
        else f"the pooled standard deviation of the settings with several seeds is {pooled:.2f}"
    )
    return (
        "The criteria are the same for every preset. They were fixed before the first runs; the "
        "changelog names those that were changed or added later, and why. A claim is reproduced "
        "if all its cases hold, partly reproduced if some hold, and not reproduced if none holds. "
        "A case is undecided if its difference is within the spread of seeds, or if one of its "
        "planned settings has no finished run. A claim is undecided if undecided cases could "
        "change it. The spread of one run combines the binomial error of the test images and "
        f"{seed_spread(pooled):.2f} points between seeds (at least {SEED_SPREAD:g}; {between}). "
        "The spread of several seeds is their standard deviation, but at least that of one run. "
        "Two settings are compared over the seeds that both have. The spread of a mean of several "
        "settings of a network is the mean of their spreads, as they share seeds and images."
    )


def _facts(results: Results) -> list[tuple[str, str]]:
    runs, settings = list(results.runs().values()), len(results.asked())
    seeds = {run.config.seed for run in runs}
    done, failed = sum(run.done for run in runs), sum(run.failed for run in runs)
    preset = results.plan.get("preset")
    facts = [
        *([("Preset", str(preset))] if preset else []),
        ("Data", _datasets(results)),
        (
            "Runs",
            f"{done} done, {failed} failed, {len(runs) - done - failed} not run"
            + (f"; the figures show {settings} settings" if settings > len(runs) else ""),
        ),
        ("Seeds", str(len(seeds))),
        ("Precision", results.precision or "nothing was run"),
        ("Training time", duration(sum(run.seconds for run in runs), rough=True)),
        ("Wall time", duration(wall_seconds(runs), rough=True)),
    ]
    if command := results.plan.get("command"):
        facts.append(("Command", str(command)))
    return facts


def table_of_runs(results: Results) -> str:
    """Every planned run as CSV: configuration, status, and results if it was run."""
    used: dict[str, list[str]] = {}
    for name, settings in results.experiments.items():
        for setting in settings:
            for run in setting.runs:
                used.setdefault(run.config.key, []).append(name)
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for key, run in results.asked().items():
        config = run.config.to_json()
        config["options"] = options_text(run.config.options, ";")
        config["method_options"] = options_text(run.config.method_options, ";")
        config["milestones"] = ";".join(str(epoch) for epoch in run.config.milestones)
        row: Mapping[str, object] = run.row or {}
        values = {
            "key": key,
            "trained_as": run.trained,
            "experiments": ";".join(used[key]),
            "family": family(run.config.model),
            "network": network_label(run.config),
            **config,
            "status": row.get("status", "not run"),
            **{name: row.get(name) for name in _COLUMNS},
        }
        if writer is None:
            writer = csv.DictWriter(text, list(values), lineterminator="\n")
            writer.writeheader()
        writer.writerow(values)
    return text.getvalue()


_COLUMNS = (
    "learned_parameters",
    "total_parameters",
    "best_top1",
    "best_epoch",
    "last_top1",
    "seconds",
    "peak_memory_bytes",
    "device",
    "started",
    "error",
)
