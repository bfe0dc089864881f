"""How settings are grouped and numbers written in the report's tables."""

from __future__ import annotations

from collections.abc import Iterable

from maskedconv.report import paper
from maskedconv.report.document import Block, Table, Text
from maskedconv.report.results import (
    Setting,
    Stat,
    dataset_title,
    network_label,
    setting_label,
    setting_order,
    signed,
)
from maskedconv.slices import SLICE_DIMS

NOTHING = "–"


def networks(settings: Iterable[Setting]) -> dict[str, list[Setting]]:
    """Settings by network, with the learning rate in the name where there are several."""
    found = list(settings)
    rates: dict[str, set[float]] = {}
    for setting in found:
        rates.setdefault(network_label(setting.config), set()).add(setting.config.lr)
    grouped: dict[str, list[Setting]] = {}
    for setting in found:
        name = network_label(setting.config)
        if len(rates[name]) > 1:
            name += f", lr {setting.config.lr:g}"
        grouped.setdefault(name, []).append(setting)
    return grouped


def datasets(settings: Iterable[Setting]) -> dict[str, list[Setting]]:
    """Settings by the data set's name."""
    grouped: dict[str, list[Setting]] = {}
    for setting in settings:
        grouped.setdefault(setting.config.dataset, []).append(setting)
    return grouped


def epochs_text(settings: Iterable[Setting]) -> str:
    """How long settings were trained, such as ``1 epoch``."""
    numbers = sorted({setting.config.epochs for setting in settings})
    text = " or ".join(str(number) for number in numbers)
    return f"{text} epoch" if numbers == [1] else f"{text} epochs"


def one_network(settings: Iterable[Setting]) -> list[Block]:
    """Names the settings that one training stands for, as they learn the same slices."""
    equals: dict[str, list[Setting]] = {}
    for setting in settings:
        equals.setdefault(setting.runs[0].trained, []).append(setting)
    names = [
        " = ".join(
            f"{setting_label(s.config)} of {SLICE_DIMS[s.config.slice_dim]}, {s.config.frozen}"
            for s in group
        )
        for group in equals.values()
        if len(group) > 1
    ]
    if not names:
        return []
    return [Text(f"Learn the same slices, and were trained once: {'; '.join(names)}.")]


def file_name(*parts: str) -> str:
    """A file name of letters, digits, dots, dashes and underscores."""
    text = "-".join(parts).replace(", ", "-").replace(" ", "-")
    return "".join(letter for letter in text if letter.isalnum() or letter in "-_.")


def cell(setting: Setting | None, stat: Stat | None) -> str:
    """A number for a table, or why there is none."""
    if setting is None or not any(run.row for run in setting.runs):
        return NOTHING
    if stat is None:
        return "diverged" if _diverged(setting) else "failed"
    failed = len(setting.failures)
    return f"{stat} ({failed} of {len(setting.runs)} failed)" if failed else str(stat)


def _diverged(setting: Setting) -> bool:
    return all((run.row or {}).get("error_type") == "Diverged" for run in setting.failures)


def best(setting: Setting | None) -> str:
    """Accuracy of the best epoch, or why there is none."""
    return cell(setting, setting.best if setting else None)


def last(setting: Setting | None) -> str:
    """Accuracy of the last epoch, or why there is none."""
    return cell(setting, setting.last if setting else None)


def difference(ours: Stat | None, theirs: float | None) -> str:
    """Ours minus theirs in points."""
    return NOTHING if ours is None or theirs is None else signed(ours.mean - theirs, 2)


def count(number: int | None) -> str:
    """A number of parameters."""
    return NOTHING if number is None else f"{number:,}"


def share(setting: Setting) -> str:
    """Percentage of the parameters that is learned."""
    learned, total = setting.learned_parameters, setting.total_parameters
    return f"{100 * learned / total:.1f}" if learned is not None and total else NOTHING


def order(setting: Setting) -> tuple[int, bool, float | int]:
    """Sorts settings by slice dimension, then as :func:`setting_order`."""
    return setting.config.slice_dim, *setting_order(setting.config)


def pairs(settings: list[Setting]) -> list[tuple[Setting | None, Setting | None]]:
    """Each setting with random and with zeroed frozen weights; None where one is not planned."""
    found: dict[tuple[str, int], dict[str, Setting]] = {}
    for setting in settings:
        config = setting.config
        found.setdefault((setting_label(config), config.slice_dim), {})[config.frozen] = setting
    return [(pair.get("random"), pair.get("zero")) for pair in found.values()]


def comparison(settings: list[Setting]) -> list[Block]:
    """Our settings beside the same runs of the authors, or a line saying that there are none."""
    compared = paper.compare(settings)
    if not compared:
        return [
            Text(
                "None of these runs has the network, data set, split and length of training of one "
                "that the authors stored, so no difference to theirs is given."
            )
        ]
    rows = [
        [
            network_label(pair.setting.config),
            dataset_title(pair.setting.config.dataset),
            f"{setting_label(pair.setting.config)} of {SLICE_DIMS[pair.setting.config.slice_dim]}",
            "zeroed" if pair.theirs.frozen == "zero" else "random",
            pair.theirs.run,
            str(pair.ours),
            f"{pair.theirs.top1:.2f}",
            signed(pair.ours.mean - pair.theirs.top1, 2),
        ]
        for pair in compared
    ]
    columns = ("network", "data", "learned", "rest", "their run", "ours", "authors", "difference")
    return [
        Table(
            "Beside the runs that the authors stored with their code: top-1, %. Their single "
            "epochs are set against the first epoch of ours.",
            columns,
            rows,
            frozenset({5, 6, 7}),
            grouped=True,
        )
    ]
