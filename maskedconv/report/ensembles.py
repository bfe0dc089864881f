"""Table 4's ensembles: what they share, which optimizer did better, what they take on disk."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from maskedconv.report.results import Setting, network_label
from maskedconv.runs.config import RunConfig


@dataclass(frozen=True)
class Stored:
    """What an ensemble needs on disk, in bytes, averaged over seeds."""

    shared: float
    members: float

    @property
    def total(self) -> float:
        return self.shared + self.members


def by_network(settings: list[Setting]) -> dict[str, list[Setting]]:
    """Ensembles by network, whatever the learning rate, which tells Adam from SGD."""
    grouped: dict[str, list[Setting]] = {}
    for setting in settings:
        grouped.setdefault(network_label(setting.config), []).append(setting)
    return grouped


def kind(config: RunConfig) -> str:
    """The paper's name of what an ensemble shares: FC, share 0.9 and so on, or full."""
    if config.trained != "all":
        return config.trained.upper()
    if isinstance(config.learned, int):
        return f"k = {config.learned}"
    return "full" if config.learned == 1.0 else f"share {1 - config.learned:g}"


def better(settings: list[Setting]) -> dict[str, Setting]:
    """Of each kind the setting with the better ensemble; none where nothing was finished."""
    found: dict[str, Setting] = {}
    for setting in settings:
        name = kind(setting.config)
        if setting.ensemble is None:
            continue
        rival = found.get(name)
        if rival is None or rival.ensemble is None or setting.ensemble.mean > rival.ensemble.mean:
            found[name] = setting
    return found


def stored(setting: Setting) -> Stored | None:
    """Bytes on disk; the start's file counts only where members still use a part of it."""
    sizes = [row["stored_bytes"] for row in setting.rows if row.get("stored_bytes")]
    if not sizes:
        return None
    shares = kind(setting.config) != "full"
    return Stored(
        fmean(size["shared"] for size in sizes) if shares else 0.0,
        fmean(sum(size["members"]) for size in sizes),
    )


def all_parameters(setting: Setting) -> int | None:
    """What the members learn, and once what they share; the paper counts the former alone."""
    learned, total = setting.learned_parameters, setting.total_parameters
    if learned is None or total is None:
        return None
    return learned + total - learned // setting.config.members
