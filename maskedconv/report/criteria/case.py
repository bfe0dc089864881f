"""What every criterion is made of: cases, thresholds, and settings grouped by network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from maskedconv.report.results import (
    Setting,
    dataset_title,
    family,
    network_label,
    setting_label,
)
from maskedconv.runs.config import RunConfig

FAR = 3.0  # times chance: far above it
NEAR = 1.5  # times chance: still at it
CLEAR = 2.0  # points by which one accuracy must exceed another
SMALL = 0.1  # largest fraction that counts as learning little
LINEAR_R2 = 0.8
WITH_BN = ("densenet", "wrn", "vgg19_bn")
WITHOUT_BN = ("vgg19", "alexnet")
HIGH_LR = 0.1


@dataclass(frozen=True)
class Case:
    """One instance of a claim; ``holds`` is None where our runs leave it open."""

    name: str
    holds: bool | None
    evidence: str

    @property
    def outcome(self) -> str:
        """``holds`` in words."""
        return {True: "holds", False: "does not hold", None: "undecided"}[self.holds]


def named(config: RunConfig) -> str:
    """Network and data set in words."""
    return f"{network_label(config)}, {dataset_title(config.dataset)}"


def by_network(settings: list[Setting], families: tuple[str, ...]) -> Iterator[list[Setting]]:
    """The settings of each network, data set and learning rate, in order of appearance."""
    grouped: dict[tuple[str, str, float], list[Setting]] = {}
    for setting in settings:
        if family(setting.config.model) in families:
            config = setting.config
            where = (network_label(config), config.dataset, config.lr)
            grouped.setdefault(where, []).append(setting)
    yield from grouped.values()


def learns_little(config: RunConfig) -> bool:
    """Whether the run learns a number of slices, or a small fraction."""
    return isinstance(config.learned, int) or config.learned <= SMALL


def with_rest(settings: list[Setting], frozen: str) -> dict[float | int | str, Setting]:
    """Settings with one kind of frozen filters by their label (1 and 1.0 are two labels)."""
    return {setting_label(s.config): s for s in settings if s.config.frozen == frozen}
