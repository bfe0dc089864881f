"""Tables for a README: one number per cell, settings in columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from maskedconv.report.document import Table
from maskedconv.report.results import SeedGroup, Stat, dataset_title, setting_label
from maskedconv.report.tables import NOTHING, cell, datasets, networks, setting_order


def pivot(
    caption: str,
    settings: Iterable[SeedGroup],
    row: Callable[[SeedGroup], str],
    column: Callable[[SeedGroup], str],
    text: Callable[[list[SeedGroup]], str],
) -> Table:
    """A table with ``text`` of the settings in each row and column."""
    cells: dict[str, dict[str, list[SeedGroup]]] = {}
    columns: dict[str, None] = {}
    for setting in settings:
        columns.setdefault(column(setting))
        cells.setdefault(row(setting), {}).setdefault(column(setting), []).append(setting)
    rows = [
        [name, *(text(found[c]) if c in found else NOTHING for c in columns)]
        for name, found in cells.items()
    ]
    return Table(caption, ("", *columns), rows, frozenset(range(1, len(columns) + 1)))


def short(stat: Stat) -> str:
    """Mean and standard deviation over seeds, with one decimal."""
    return f"{stat.mean:.1f}" if stat.sd is None else f"{stat.mean:.1f} ± {stat.sd:.1f}"


def one(setting: SeedGroup | None) -> str:
    """Accuracy of the best epoch, or the reason if there is none."""
    return cell(setting, setting.best if setting else None, short)


def random_zeroed(settings: list[SeedGroup]) -> str:
    """Accuracy with random frozen filters, followed by zeroed ones in parentheses."""
    by_rest = {setting.config.frozen: setting for setting in settings}
    random = one(by_rest.get("random"))
    return with_zeroed(random, one(by_rest["zero"])) if "zero" in by_rest else random


def with_zeroed(random: str, zeroed: str) -> str:
    """``random (zeroed)``, or one dash if there is neither."""
    return NOTHING if random == zeroed == NOTHING else f"{random} ({zeroed})"


def label(setting: SeedGroup) -> str:
    """The learned slice, such as ``p = 0.1``."""
    return setting_label(setting.config)


def ordered(settings: Iterable[SeedGroup]) -> list[SeedGroup]:
    """Settings by number of slices, then by fraction."""
    return sorted(settings, key=lambda setting: setting_order(setting.config))


def learned_tables(title: str, settings: list[SeedGroup]) -> list[Table]:
    """A table for each data set, with networks in rows and learned slices in columns."""
    names = {id(s): name for name, group in networks(settings).items() for s in group}
    return [
        pivot(
            f"{title}, {dataset_title(dataset)}: rest random (zeroed)",
            ordered(here),
            lambda setting: names[id(setting)],
            label,
            random_zeroed,
        )
        for dataset, here in datasets(settings).items()
    ]


def beside(
    caption: str,
    settings: list[SeedGroup],
    printed: Callable[[SeedGroup], tuple[str, float] | None],
) -> Table:
    """A table with our and the paper's accuracy in rows and the learned slices in columns.

    Args:
        printed: returns the network and the accuracy that the paper prints for a setting.
    """
    columns = list(dict.fromkeys(map(_column, settings)))
    rows = []
    for name, group in networks(settings).items():
        by_column = {_column(setting): setting for setting in group}
        rows.append([f"{name}, ours", *(one(by_column.get(c)) for c in columns)])
        theirs = [printed(by_column[c]) if c in by_column else None for c in columns]
        model = next((found[0] for found in theirs if found), NOTHING)
        numbers = (f"{found[1]:.1f}" if found else NOTHING for found in theirs)
        rows.append([f"{model}, paper", *numbers])
    return Table(caption, ("", *columns), rows, frozenset(range(1, len(columns) + 1)))


def _column(setting: SeedGroup) -> str:
    return label(setting) + (" zeroed" if setting.config.frozen == "zero" else "")
