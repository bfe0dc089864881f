"""Accuracies with their spread over seeds and test images.

A criterion compares accuracies. A comparison is undecided if the difference is within its spread.

The spread of an accuracy is the sample standard deviation over seeds if there are several. With one
seed it is √(binomial² + SEED_SPREAD²): the binomial error of the test images, and an assumed
deviation of ``SEED_SPREAD`` points between seeds. The spread of a difference is the root of the sum
of squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from maskedconv.report.results import SeedGroup, Stat

SEED_SPREAD = 0.5  # assumed standard deviation between seeds, in points


@dataclass(frozen=True)
class Measured:
    """A value in percent or points, and its standard deviation."""

    value: float
    spread: float = 0.0

    def __sub__(self, other: Measured) -> Measured:
        return Measured(self.value - other.value, math.hypot(self.spread, other.spread))

    def __truediv__(self, divisor: float) -> Measured:
        return Measured(self.value / divisor, self.spread / divisor)

    def __str__(self) -> str:
        return f"{self.value:.2f} %"

    def over(self, threshold: float) -> Measured:
        """The difference to a threshold without spread."""
        return self - Measured(threshold)


def mean(numbers: Sequence[Measured]) -> Measured:
    """The mean, with independent errors."""
    total = math.hypot(*(number.spread for number in numbers))
    return Measured(math.fsum(number.value for number in numbers), total) / len(numbers)


def exceeds(difference: Measured, by: float = 0.0) -> bool | None:
    """Whether ``difference`` is at least ``by``; None if undecided.

    The result is undecided if one spread more or less would change it or the sign of the
    difference.
    """
    if min(abs(difference.value), abs(difference.value - by)) <= difference.spread:
        return None
    return difference.value >= by


def all_of(*outcomes: bool | None) -> bool | None:
    """False if any outcome is False, True if all are True, else None."""
    if False in outcomes:
        return False
    return None if None in outcomes else True


def accuracy(setting: SeedGroup | None) -> Measured | None:
    """Accuracy of the best epochs; a diverged run counts as chance. None if none was run."""
    if setting is None:
        return None
    chance, diverged = setting.chance, sum(run.diverged for run in setting.failures)
    if not diverged or chance is None:
        return None if setting.best is None else measured(setting.best, setting)
    finished = [top1 for row in setting.rows if (top1 := row["best_top1"]) is not None]
    stat = Stat.of([*finished, *[chance] * diverged]) if finished else None
    return Measured(chance) if stat is None else measured(stat, setting)


def measured(stat: Stat, setting: SeedGroup) -> Measured:
    """An accuracy of ``setting`` with its spread."""
    if stat.sd is not None:
        return Measured(stat.mean, stat.sd)
    fraction = min(max(stat.mean / 100, 0.0), 1.0)
    images = setting.test_images
    binomial = 100 * math.sqrt(fraction * (1 - fraction) / images) if images else 0.0
    return Measured(stat.mean, math.hypot(binomial, SEED_SPREAD))
