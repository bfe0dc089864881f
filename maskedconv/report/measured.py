"""Accuracies with their spread over seeds and test images.

A criterion compares accuracies. A comparison is undecided if the difference is within its spread.

The spread of one run's accuracy is √(binomial² + seeds²): the binomial error of the test images,
and the deviation between seeds. The latter is the pooled standard deviation of the settings with
several seeds in the same results, but at least ``SEED_SPREAD`` points. Several seeds have their
sample standard deviation, but at least the spread of one run: a few seeds may agree by chance. The
spread of a difference is the root of the sum of squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maskedconv.report.results import SeedGroup, Stat

SEED_SPREAD = 0.5  # smallest standard deviation between seeds, in points


@dataclass(frozen=True)
class Measured:
    """A value in percent or points, and its standard deviation."""

    value: float
    spread: float = 0.0

    @property
    def known(self) -> bool:
        """Whether the value is a number; False for what is computed from ``UNKNOWN``."""
        return math.isfinite(self.value)

    def __abs__(self) -> Measured:
        return Measured(abs(self.value), self.spread)

    def __sub__(self, other: Measured) -> Measured:
        return Measured(self.value - other.value, math.hypot(self.spread, other.spread))

    def __truediv__(self, divisor: float) -> Measured:
        return Measured(self.value / divisor, self.spread / divisor)

    def __str__(self) -> str:
        return f"{self.value:.2f} %" if self.known else NOT_RUN

    def over(self, threshold: float) -> Measured:
        """The difference to a threshold without spread."""
        return self - Measured(threshold)


NOT_RUN = "not run, or failed"
# The accuracy of a planned setting without a finished run. It may be any, so it decides nothing. It
# is larger than all others, so that the best of several is unknown if one of them is.
UNKNOWN = Measured(math.inf, math.inf)


def mean(numbers: Sequence[Measured]) -> Measured:
    """The mean, with independent errors."""
    total = math.hypot(*(number.spread for number in numbers))
    # fsum raises an error for the sum of two infinities of opposite sign.
    return Measured(sum(number.value for number in numbers), total) / len(numbers)


def exceeds(difference: Measured, by: float = 0.0) -> bool | None:
    """Whether ``difference`` is at least ``by``; None if undecided.

    The result is undecided if one spread more or less would change it or the sign of the
    difference, or if the difference is unknown.
    """
    nearest = min(abs(difference.value), abs(difference.value - by))
    if not difference.known or nearest <= difference.spread:
        return None
    return difference.value >= by


def all_of(*outcomes: bool | None) -> bool | None:
    """False if any outcome is False, True if all are True, else None."""
    if False in outcomes:
        return False
    return None if None in outcomes else True


def accuracy(setting: SeedGroup | None) -> Measured | None:
    """Accuracy of the best epochs; a diverged run counts as chance.

    None if ``setting`` is None (not planned), and ``UNKNOWN`` if none of its runs is finished.
    """
    if setting is None:
        return None
    chance, diverged = setting.chance, sum(run.diverged for run in setting.failures)
    if not diverged or chance is None:
        return UNKNOWN if setting.best is None else measured(setting.best, setting)
    finished = [top1 for row in setting.rows if (top1 := row["best_top1"]) is not None]
    stat = Stat.of([*finished, *[chance] * diverged]) if finished else None
    return Measured(chance) if stat is None else measured(stat, setting)


def is_finished(setting: SeedGroup) -> bool:
    """Whether the accuracy of ``setting`` is known."""
    top1 = accuracy(setting)
    return top1 is not None and top1.known


def measured(stat: Stat, setting: SeedGroup) -> Measured:
    """An accuracy of ``setting`` with its spread."""
    error = binomial(stat.mean, setting.test_images) if setting.test_images else 0.0
    one_run = math.hypot(error, seed_spread(setting.pooled_sd))
    return Measured(stat.mean, max(stat.sd or 0.0, one_run))


def binomial(percent: float, count: int) -> float:
    """The binomial error of a percentage of ``count``, in points."""
    fraction = min(max(percent / 100, 0.0), 1.0)
    return 100 * math.sqrt(fraction * (1 - fraction) / count)


def seed_spread(pooled: float | None) -> float:
    """The deviation between seeds that one run is given; ``pooled`` as of :func:`pooled_sd`."""
    return max(SEED_SPREAD, pooled or 0.0)


def pooled_sd(settings: Iterable[SeedGroup]) -> float | None:
    """The pooled standard deviation over seeds, in points; None if no setting has several.

    A setting that several items share counts once.
    """
    found = {setting.config.key: setting.best for setting in settings}
    several = [(stat.n - 1, stat.sd) for stat in found.values() if stat and stat.sd is not None]
    if not several:
        return None
    return math.sqrt(sum(n * sd**2 for n, sd in several) / sum(n for n, _ in several))
