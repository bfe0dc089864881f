"""Groups settings and formats numbers for the report's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from maskedconv.report.document import Block, Text
from maskedconv.report.results import (
    SeedGroup,
    Stat,
    dataset_title,
    network_label,
    setting_label,
    signed,
)
from maskedconv.runs.config import RunConfig
from maskedconv.slices import SLICE_DIMS

NOTHING = "–"


def named(config: RunConfig) -> str:
    """Network and data set as text."""
    return f"{network_label(config)}, {dataset_title(config.dataset)}"


def networks(settings: Iterable[SeedGroup]) -> dict[str, list[SeedGroup]]:
    """Settings by network, with the learning rate in the name if there are several."""
    found = list(settings)
    rates: dict[str, set[float]] = {}
    for setting in found:
        rates.setdefault(network_label(setting.config), set()).add(setting.config.lr)
    grouped: dict[str, list[SeedGroup]] = {}
    for setting in found:
        name = network_label(setting.config)
        if len(rates[name]) > 1:
            name += f", lr {setting.config.lr:g}"
        grouped.setdefault(name, []).append(setting)
    return grouped


def networks_at_any_rate(settings: Iterable[SeedGroup]) -> dict[str, list[SeedGroup]]:
    """Settings by network, whatever their learning rate."""
    grouped: dict[str, list[SeedGroup]] = {}
    for setting in settings:
        grouped.setdefault(network_label(setting.config), []).append(setting)
    return grouped


def datasets(settings: Iterable[SeedGroup]) -> dict[str, list[SeedGroup]]:
    """Settings by the data set's name."""
    grouped: dict[str, list[SeedGroup]] = {}
    for setting in settings:
        grouped.setdefault(setting.config.dataset, []).append(setting)
    return grouped


def epochs_text(settings: Iterable[SeedGroup]) -> str:
    """The epochs of the settings, such as ``1 epoch``."""
    numbers = sorted({setting.config.epochs for setting in settings})
    text = " or ".join(str(number) for number in numbers)
    return f"{text} epoch" if numbers == [1] else f"{text} epochs"


def one_network(settings: Iterable[SeedGroup]) -> list[Block]:
    """Lists the settings that share one training, because they learn the same slices."""
    equals: dict[str, list[SeedGroup]] = {}
    for setting in settings:
        equals.setdefault(setting.runs[0].trained, []).append(setting)
    names = []
    for group in equals.values():
        if len(group) > 1:
            by_rest: dict[str, list[str]] = {}
            for s in group:
                rest = "zeroed" if s.config.frozen == "zero" else s.config.frozen
                where = f"{SLICE_DIMS[s.config.slice_dim]}, {rest}"
                by_rest.setdefault(where, []).append(setting_label(s.config))
            parts = (f"{', '.join(labels)} ({where})" for where, labels in by_rest.items())
            names.append(" and ".join(parts))
    if not names:
        return []
    return [Text(f"These settings learn the same slices and share one run: {'; '.join(names)}.")]


def file_name(*parts: str) -> str:
    """A file name of letters, digits, dots, dashes and underscores."""
    text = "-".join(parts).replace(", ", "-").replace(" ", "-")
    return "".join(letter for letter in text if letter.isalnum() or letter in "-_.")


def cell(setting: SeedGroup | None, stat: Stat | None, text: Callable[[Stat], str] = str) -> str:
    """A number for a table as ``text``, or the reason for none.

    It names the seeds that failed. Those that were not run are named beside several others; the
    number of a single seed is known by its missing ``±``.
    """
    if setting is None or not any(run.row for run in setting.runs):
        return NOTHING
    if stat is None:
        return "diverged" if _diverged(setting) else "failed"
    planned, failed = len(setting.runs), len(setting.failures)
    missing = sum(run.row is None for run in setting.runs) if stat.n > 1 else 0
    lost = [(failed, "failed"), (missing, "not run")]
    reasons = ", ".join(f"{number} of {planned} {reason}" for number, reason in lost if number)
    return text(stat) + (f" ({reasons})" if reasons else "")


def _diverged(setting: SeedGroup) -> bool:
    return all(run.diverged for run in setting.failures)


def best(setting: SeedGroup | None) -> str:
    """Accuracy of the best epoch, or the reason if there is none."""
    return cell(setting, setting.best if setting else None)


def last(setting: SeedGroup | None) -> str:
    """Accuracy of the last epoch, or the reason if there is none."""
    return cell(setting, setting.last if setting else None)


def difference(ours: Stat | None, theirs: float | None) -> str:
    """Ours minus theirs in points."""
    return NOTHING if ours is None or theirs is None else signed(ours.mean - theirs, 2)


def count(number: int | None) -> str:
    """A number of parameters."""
    return NOTHING if number is None else f"{number:,}"


def percent_learned(setting: SeedGroup) -> str:
    """Percentage of learned parameters."""
    learned, total = setting.learned_parameters, setting.total_parameters
    return f"{100 * learned / total:.1f}" if learned is not None and total else NOTHING


def setting_order(config: RunConfig) -> tuple[bool, float | int]:
    """Sort key: numbers of slices first, then fractions, both ascending."""
    return isinstance(config.learned, float), config.learned


def order(setting: SeedGroup) -> tuple[int, bool, float | int]:
    """Sort key: slice dimension, then :func:`setting_order`."""
    return setting.config.slice_dim, *setting_order(setting.config)


def pairs(settings: list[SeedGroup]) -> list[tuple[SeedGroup | None, SeedGroup | None]]:
    """Pairs of each setting with random and zeroed frozen weights; None if not planned."""
    found: dict[tuple[str, int], dict[str, SeedGroup]] = {}
    for setting in settings:
        config = setting.config
        found.setdefault((setting_label(config), config.slice_dim), {})[config.frozen] = setting
    return [(pair.get("random"), pair.get("zero")) for pair in found.values()]
