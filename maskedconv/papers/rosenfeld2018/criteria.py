"""Shared thresholds of the criteria, fixed before the first runs, and helpers to state them."""

from __future__ import annotations

from collections.abc import Iterator

from maskedconv.report.claims import Case
from maskedconv.report.measured import Measured, exceeds, mean, over_common_seeds
from maskedconv.report.results import (
    SeedGroup,
    family,
    network_label,
    setting_label,
    signed,
)
from maskedconv.report.tables import named
from maskedconv.runs.config import RunConfig

FAR = 3.0  # times chance: far above chance
NEAR = 1.5  # times chance: still at chance
CLEAR = 2.0  # points by which one accuracy must exceed another
SMALL = 0.1  # largest fraction that counts as learning little
MUCH = 0.4  # smallest fraction that counts as learning much
LINEAR_R2 = 0.8
WITH_BN = ("densenet", "wrn", "vgg19_bn")
WITHOUT_BN = ("vgg19", "alexnet")
HIGH_LR = 0.1


def by_network(settings: list[SeedGroup], families: tuple[str, ...]) -> Iterator[list[SeedGroup]]:
    """The settings of each network, data set and learning rate, in order of appearance."""
    grouped: dict[tuple[str, str, float], list[SeedGroup]] = {}
    for setting in settings:
        if family(setting.config.model) in families:
            config = setting.config
            where = (network_label(config), config.dataset, config.lr)
            grouped.setdefault(where, []).append(setting)
    yield from grouped.values()


def learns_little(config: RunConfig) -> bool:
    """Whether the run learns a number of slices, or a small fraction."""
    return isinstance(config.learned, int) or config.learned <= SMALL


def with_rest(settings: list[SeedGroup], frozen: str) -> dict[float | int | str, SeedGroup]:
    """Settings with one kind of frozen filters by their label (1 and 1.0 are two labels)."""
    return {setting_label(s.config): s for s in settings if s.config.frozen == frozen}


def on_average(setting: SeedGroup, gaps: dict[str, Measured]) -> Case:
    """The case of a network: its mean difference must be at least ``CLEAR``."""
    same = over_common_seeds(*gaps.values())
    found = mean(same)
    each = ", ".join(f"{name}: {signed(gap.value)}" for name, gap in zip(gaps, same, strict=True))
    evidence = f"mean {signed(found.value)} points ({each})"
    return Case(named(setting.config), exceeds(found, CLEAR), evidence)
