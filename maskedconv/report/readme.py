"""The results in short Markdown tables, for a README: made of a folder's rows by a command."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from maskedconv.console import duration
from maskedconv.report import paper
from maskedconv.report.build import notice
from maskedconv.report.claims import judge
from maskedconv.report.document import Table
from maskedconv.report.ensembles import better, by_network, stored
from maskedconv.report.items import table1, table2
from maskedconv.report.items.fig3 import fits_table
from maskedconv.report.render import STATUSES, table
from maskedconv.report.results import (
    Results,
    Setting,
    Stat,
    dataset_title,
    is_reference,
    setting_label,
    setting_order,
    split_label,
)
from maskedconv.report.tables import NOTHING, datasets, networks
from maskedconv.slices import SLICE_DIMS


def tables(results: Results, items: Sequence[str]) -> str:
    """What was run, the scorecard, and a table of each of ``items`` (none: of all planned ones).

    Raises:
        ValueError: an item is not in the plan; the message lists those that are.
    """
    planned = [name for name in SHORT if name in results.experiments]
    if unknown := [name for name in items if name not in planned]:
        there = ", ".join(planned)
        raise ValueError(f"item is {', '.join(unknown)}; expected some of the plan's: {there}")
    parts = [notice(results), _origin(results), table(_scorecard(results))]
    for name in planned:
        if name in items or not items:
            for found in SHORT[name](results.settings(name)):
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


Text = Callable[[list[Setting]], str]


def _pivot(
    caption: str,
    settings: Iterable[Setting],
    row: Callable[[Setting], str],
    column: Callable[[Setting], str],
    text: Text,
) -> Table:
    """``text`` of the settings that share a row and a column."""
    cells: dict[str, dict[str, list[Setting]]] = {}
    columns: dict[str, None] = {}
    for setting in settings:
        columns.setdefault(column(setting))
        cells.setdefault(row(setting), {}).setdefault(column(setting), []).append(setting)
    rows = [
        [name, *(text(found[c]) if c in found else NOTHING for c in columns)]
        for name, found in cells.items()
    ]
    return Table(caption, ("", *columns), rows, frozenset(range(1, len(columns) + 1)))


def _short(stat: Stat | None) -> str:
    if stat is None:
        return NOTHING
    return f"{stat.mean:.1f}" if stat.sd is None else f"{stat.mean:.1f} ± {stat.sd:.1f}"


def _one(setting: Setting | None) -> str:
    if setting is None:
        return NOTHING
    return "diverged" if setting.failures and setting.best is None else _short(setting.best)


def _random_zeroed(settings: list[Setting]) -> str:
    by_rest = {setting.config.frozen: setting for setting in settings}
    random = _one(by_rest.get("random"))
    return f"{random} ({_one(by_rest['zero'])})" if "zero" in by_rest else random


def _label(setting: Setting) -> str:
    return setting_label(setting.config)


def _ordered(settings: Iterable[Setting]) -> list[Setting]:
    return sorted(settings, key=lambda setting: setting_order(setting.config))


def _learned(title: str) -> Callable[[list[Setting]], list[Table]]:
    def found(settings: list[Setting]) -> list[Table]:
        names = {id(s): name for name, group in networks(settings).items() for s in group}
        return [
            _pivot(
                f"{title}, {dataset_title(dataset)}: rest random (zeroed)",
                _ordered(here),
                lambda setting: names[id(setting)],
                _label,
                _random_zeroed,
            )
            for dataset, here in datasets(settings).items()
        ]

    return found


def _fig2(settings: list[Setting]) -> list[Table]:
    found = []
    for dataset, here in datasets(settings).items():
        for name, group in networks(here).items():
            caption = (
                f"Figure 2, {name}, {dataset_title(dataset)}: rest random (zeroed); the authors': "
                "DenseNet-BC-100-12, CIFAR-10, 1 epoch"
            )
            ours = _pivot(caption, _ordered(group), _label, _slice, _random_zeroed)
            rows = [
                line
                for row in ours.rows
                for line in (row, [f"{row[0]}, authors", *_authors(row[0], ours.columns[1:])])
            ]
            found.append(replace(ours, rows=rows))
    return found


def _slice(setting: Setting) -> str:
    return SLICE_DIMS[setting.config.slice_dim]


def _authors(label: str, slices: Sequence[str]) -> list[str]:
    """The authors' stored runs of one epoch, DenseNet-BC-100-12 on CIFAR-10."""
    top1 = {
        (SLICE_DIMS[run.slice_dim], run.frozen): f"{run.top1:.1f}"
        for run in paper.author_runs()
        if run.run == "1 epoch" and split_label(run.learned) == label
    }
    return [
        f"{top1.get((name, 'random'), NOTHING)} ({top1.get((name, 'zero'), NOTHING)})"
        for name in slices
    ]


def _fig3(settings: list[Setting]) -> list[Table]:
    found = [(dataset_title(name), here) for name, here in datasets(settings).items()]
    return [fits_table(f"figure 3, {label}", here) for label, here in found]


def _fig4(settings: list[Setting]) -> list[Table]:
    def with_without(found: list[Setting]) -> str:
        by_bn = {setting.config.bn_learned: setting for setting in found}
        return f"{_one(by_bn.get(True))} / {_one(by_bn.get(False))}"

    return [
        _pivot(
            f"Figure 4, {name}, {dataset_title(dataset)}: BatchNorm learned / fixed",
            _ordered(s for s in group if not is_reference(s.config)),
            lambda setting: "zeroed" if setting.config.frozen == "zero" else "random",
            _label,
            with_without,
        )
        for dataset, here in datasets(settings).items()
        for name, group in networks(here).items()
    ]


def _beside(
    caption: str, settings: list[Setting], theirs: Callable[[Setting], tuple[str, float] | None]
) -> Table:
    """Ours and the paper's in rows, the learned parts in columns."""
    columns = list(dict.fromkeys(map(_column, settings)))
    rows = []
    for name, group in networks(settings).items():
        by_column = {_column(setting): setting for setting in group}
        rows.append([f"{name}, ours", *(_one(by_column.get(c)) for c in columns)])
        printed = [theirs(by_column[c]) if c in by_column else None for c in columns]
        model = next((found[0] for found in printed if found), NOTHING)
        numbers = (f"{found[1]:.1f}" if found else NOTHING for found in printed)
        rows.append([f"{model}, paper", *numbers])
    return Table(caption, ("", *columns), rows, frozenset(range(1, len(columns) + 1)))


def _column(setting: Setting) -> str:
    rest = " zeroed" if setting.config.frozen == "zero" else ""
    return setting_label(setting.config) + rest


def _table1(settings: list[Setting]) -> list[Table]:
    def theirs(setting: Setting) -> tuple[str, float] | None:
        found = table1.printed(setting)
        return None if found is None else (found[0], found[2])

    return [
        _beside(f"Table 1, {dataset_title(dataset)}: learned besides BN", here, theirs)
        for dataset, here in datasets(settings).items()
    ]


def _table2(settings: list[Setting]) -> list[Table]:
    return [_beside("Table 2 (all: the authors' stored runs)", _ordered(settings), table2.printed)]


def _table3(settings: list[Setting]) -> list[Table]:
    def theirs(setting: Setting) -> tuple[str, float] | None:
        found = paper.TABLE3.get(float(setting.config.learned))
        return None if found is None else ("wrn_28_4, Tiny-ImageNet", found[0])

    return [
        _beside(f"Table 3, {dataset_title(dataset)}", _ordered(here), theirs)
        for dataset, here in datasets(settings).items()
    ]


def _table4(settings: list[Setting]) -> list[Table]:
    found = []
    ensembles = [setting for setting in settings if setting.config.members]
    for name, group in by_network(ensembles).items():
        rows = []
        for shared, setting in better(group).items():
            theirs, sizes = paper.TABLE4.get(shared), stored(setting)
            rows.append(
                [
                    shared,
                    f"{_short(setting.last)} / {_short(setting.ensemble)}",
                    f"{theirs[0]:g} / {theirs[1]:g}" if theirs else NOTHING,
                    f"{setting.learned_parameters:,}",
                    f"{sizes.total / 1e6:.2f} MB" if sizes else NOTHING,
                ]
            )
        columns = ("shared", "mean / ensemble", "paper", "parameters", "stored")
        found.append(
            Table(f"Table 4, {name}, better of SGD and Adam", columns, rows, frozenset(range(1, 5)))
        )
    return found


SHORT: dict[str, Callable[[list[Setting]], list[Table]]] = {
    "fig1": _learned("Figure 1"),
    "fig2": _fig2,
    "fig3": _fig3,
    "fig4": _fig4,
    "fig5": _learned("Figure 5"),
    "table1": _table1,
    "table2": _table2,
    "table3": _table3,
    "table4": _table4,
}
