"""Linear fits of accuracy against the logarithm of the learned fraction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from maskedconv.report.measured import accuracy
from maskedconv.report.results import SeedGroup, is_reference


@dataclass(frozen=True)
class Fit:
    """A least-squares line ``y = intercept + slope * x`` through ``n`` points.

    ``low`` and ``high`` bound the slope's 95 % confidence interval (Student's t).
    """

    slope: float
    intercept: float
    r2: float
    low: float
    high: float
    n: int


def fit_line(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """The line through the points; None with fewer than three different ``x``."""
    if len(set(x)) < 3:
        return None
    from scipy import stats

    line = stats.linregress(x, y)
    # scipy divides 0 by 0 for a constant: the line is exact with slope 0, and R² is 0.
    varies = len(set(y)) > 1
    margin = float(stats.t.ppf(0.975, len(x) - 2)) * float(line.stderr) if varies else 0.0
    r2 = float(line.rvalue) ** 2 if varies else 0.0
    slope = float(line.slope)
    return Fit(slope, float(line.intercept), r2, slope - margin, slope + margin, len(x))


def log_fraction(setting: SeedGroup) -> float | None:
    """log10 of learned over all parameters; None if nothing was run."""
    learned, total = setting.learned_parameters, setting.total_parameters
    return math.log10(learned / total) if learned and total else None


def fit_seed_groups(settings: list[SeedGroup]) -> Fit | None:
    """Fit of mean best accuracy against log10 of the learned fraction, one point per setting.

    For one network, the slope against the logarithm of the number of learned parameters is the
    same.
    """
    points = fitted_points(settings)
    return fit_line([x for x, _ in points], [y for _, y in points])


def fitted_points(settings: list[SeedGroup]) -> list[tuple[float, float]]:
    """log10 of the learned fraction and accuracy of every finished setting.

    A diverged run counts as chance. The all-weights reference is excluded.
    """
    return [
        (x, top1.value)
        for setting in settings
        if not is_reference(setting.config)
        and (top1 := accuracy(setting)) is not None
        and top1.known
        and (x := log_fraction(setting)) is not None
    ]
