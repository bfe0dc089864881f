"""Accuracies with their spread over seeds and test images.

A criterion compares accuracies. A comparison is undecided if the difference is within its spread.

The spread of one run's accuracy is √(binomial² + seeds²): the binomial error of the test images,
and the deviation between seeds. The latter is the pooled standard deviation of the settings with
several seeds in the same results, but at least ``SEED_SPREAD`` points. Several seeds have their
sample standard deviation, but at least the spread of one run: a few seeds may agree by chance.

Settings of one seed start from the same values and see the same images in the same order. So
settings are compared, and their mean is taken, over the seeds that all of them have. The spread of
a difference is the root of the sum of squares. The spread of a mean of several settings of a
network is the mean of their spreads, as their errors may be the same one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from maskedconv.report.results import Run, SeedGroup, Stat, signed

SEED_SPREAD = 0.5  # smallest standard deviation between seeds, in points


@dataclass(frozen=True)
class Measured:
    """A value in percent or points, and its standard deviation.

    Attributes:
        by_seed: the value of each seed; empty for a number without seeds.
        one_run: the spread if only one of the seeds had run.
    """

    value: float
    spread: float = 0.0
    one_run: float = 0.0
    by_seed: Mapping[int, float] = field(default_factory=dict, compare=False)

    @property
    def known(self) -> bool:
        """Whether the value is a number; False for values computed from ``UNKNOWN``."""
        return math.isfinite(self.value)

    def __abs__(self) -> Measured:
        return self if self.value >= 0 else _ZERO - self

    def __sub__(self, other: Measured) -> Measured:
        seeds = _common((self, other))
        if seeds is None:
            return UNKNOWN
        one, two = self._of(seeds), other._of(seeds)
        return Measured(
            one.value - two.value,
            math.hypot(one.spread, two.spread),
            math.hypot(one.one_run, two.one_run),
            {s: one.by_seed.get(s, one.value) - two.by_seed.get(s, two.value) for s in seeds},
        )

    def __truediv__(self, divisor: float) -> Measured:
        by_seed = {seed: value / divisor for seed, value in self.by_seed.items()}
        return Measured(
            self.value / divisor, self.spread / divisor, self.one_run / divisor, by_seed
        )

    def __str__(self) -> str:
        return f"{self.value:.2f} %" if self.known else NOT_RUN

    def over(self, threshold: float) -> Measured:
        """The difference to a threshold without spread."""
        return self - Measured(threshold)

    def _of(self, seeds: Sequence[int]) -> Measured:
        """The same measurement over ``seeds`` alone."""
        if not self.by_seed or len(seeds) == len(self.by_seed):
            return self
        by_seed = {seed: self.by_seed[seed] for seed in seeds}
        stat = Stat.of(by_seed.values())
        assert stat is not None
        return Measured(stat.mean, max(stat.sd or 0.0, self.one_run), self.one_run, by_seed)


NOT_RUN = "not run, or failed"
# The accuracy of a planned setting without a finished run. It may be any, so it decides nothing. It
# is larger than all others, so that the best of several is unknown if one of them is.
UNKNOWN = Measured(math.inf, math.inf)
_ZERO = Measured(0.0)


def mean(numbers: Sequence[Measured], *, independent: bool = False) -> Measured:
    """The mean of several settings over the seeds that all of them have.

    It is unknown if they have no seed in common, or if one of them is unknown.

    Args:
        independent: whether their errors are independent, as those of different networks. The
            errors of several settings of one network may be the same one.
    """
    seeds = _common(numbers)
    if seeds is None or not all(number.known for number in numbers):
        return UNKNOWN
    same = over_common_seeds(*numbers)
    by_seed = {seed: fmean(one.by_seed.get(seed, one.value) for one in same) for seed in seeds}
    total = (lambda spreads: math.hypot(*spreads)) if independent else sum
    spread, one_run = (
        total([getattr(one, name) for one in same]) / len(same) for name in ("spread", "one_run")
    )
    return Measured(fmean(one.value for one in same), spread, one_run, by_seed)


def over_common_seeds(*numbers: Measured) -> tuple[Measured, ...]:
    """The same numbers over the seeds that all of them have, so that their difference is theirs.

    A number without seeds stays as it is. So do all of them if they have no seed in common; their
    difference is then unknown.
    """
    seeds = _common(numbers)
    return numbers if seeds is None else tuple(number._of(seeds) for number in numbers)


def _common(numbers: Iterable[Measured]) -> list[int] | None:
    """The seeds of all numbers that have seeds; None if these have none in common."""
    found = [set(number.by_seed) for number in numbers if number.by_seed]
    seeds = sorted(set.intersection(*found)) if found else []
    return None if found and not seeds else seeds


def exceeds(difference: Measured, by: float = 0.0) -> bool | None:
    """Whether ``difference`` is at least ``by``; None if undecided.

    The result is undecided if one spread more or less would change it or the sign of the
    difference, or if the difference is unknown.
    """
    nearest = min(abs(difference.value), abs(difference.value - by))
    if not difference.known or nearest <= difference.spread:
        return None
    return difference.value >= by


def at_most(difference: Measured, limit: float) -> bool | None:
    """Whether ``difference`` is at most ``limit``; None if undecided, as for :func:`exceeds`."""
    return exceeds(Measured(limit) - difference)


def near(ours: Measured, printed: float, within: float) -> bool | None:
    """Whether our accuracy is within ``within`` points of the printed one; None if undecided."""
    return at_most(abs(ours.over(printed)), within)


def beside_printed(ours: Measured, printed: float) -> str:
    """Our and the printed accuracy as text."""
    return f"{ours} against the printed {printed:g} % ({signed(ours.value - printed)})"


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
    found = {run.config.seed: _top1_of(run, setting.chance) for run in setting.runs}
    by_seed = {seed: top1 for seed, top1 in found.items() if top1 is not None}
    stat = Stat.of(by_seed.values())
    if stat is None:
        return UNKNOWN
    if setting.best is None:  # all diverged
        return Measured(stat.mean, by_seed=by_seed)
    return replace(measured(stat, setting), by_seed=by_seed)


def _top1_of(run: Run, chance: float | None) -> float | None:
    """Accuracy of the best epoch, or chance if the run diverged; None if it is not known."""
    if run.row is not None and run.done:
        return run.row["best_top1"]
    return chance if run.diverged else None


def is_finished(setting: SeedGroup) -> bool:
    """Whether the accuracy of ``setting`` is known."""
    top1 = accuracy(setting)
    return top1 is not None and top1.known


def measured(stat: Stat, setting: SeedGroup) -> Measured:
    """An accuracy of ``setting`` with its spread."""
    count = setting.independent_tests
    error = binomial(stat.mean, count) if count else 0.0
    one_run = math.hypot(error, seed_spread(setting.pooled_sd))
    return Measured(stat.mean, max(stat.sd or 0.0, one_run), one_run)


def binomial(percent: float, count: int) -> float:
    """The binomial error of a percentage of ``count``, in points."""
    fraction = min(max(percent / 100, 0.0), 1.0)
    return 100 * math.sqrt(fraction * (1 - fraction) / count)


def seed_spread(pooled: float | None) -> float:
    """The deviation between seeds that one run is given; ``pooled`` as of :func:`pooled_sd`."""
    return max(SEED_SPREAD, pooled or 0.0)


def pooled_sd(settings: Iterable[SeedGroup]) -> float | None:
    """The pooled standard deviation over seeds, in points; None if no setting has several.

    Settings that share one trained network count once.
    """
    found = {setting.runs[0].trained: setting.best for setting in settings}
    several = [(stat.n - 1, stat.sd) for stat in found.values() if stat and stat.sd is not None]
    if not several:
        return None
    return math.sqrt(sum(n * sd**2 for n, sd in several) / sum(n for n, _ in several))
