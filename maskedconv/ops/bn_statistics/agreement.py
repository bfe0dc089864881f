"""How the outputs of bn_statistics are compared: see :mod:`maskedconv.ops.agreement`."""

from __future__ import annotations

from collections.abc import Iterator

from maskedconv.ops.agreement import NOISE, Output, Outputs, elementwise
from maskedconv.ops.bn_statistics import reference
from maskedconv.ops.bn_statistics.problem import StatisticsProblem

_OF_SUMS = 2.0**-10  # a float32 sum over millions of pixels, relative to its terms


def compare_statistics(
    problem: StatisticsProblem, results: Outputs, expected: Outputs
) -> Iterator[Output]:
    """Mean and variance, each channel on its own; the other rows against those of these two.

    Rounding moves a value by a fraction of the mean, and the variance accordingly.
    """
    found, right = results[0].double(), expected[0].double()
    mean, var = right[:2]
    deviation, moved = var.sqrt(), NOISE * mean.abs()
    yield Output("mean", found[0], mean, _OF_SUMS * deviation + moved, 0.0)
    yield Output("variance", found[1], var, (2 * deviation + moved) * moved, _OF_SUMS)
    derived = reference.run(problem._replace(moments=results[0][:2], summand=None)).double()
    yield Output("1 / deviation", found[2], derived[2], 0.0, NOISE)
    yield Output("scale", found[3], derived[3], 0.0, NOISE)
    yield Output("shift", found[4], derived[4], 2 * NOISE * (found[0] * found[3]).abs(), NOISE)


def compare_with_sum(
    problem: StatisticsProblem, results: Outputs, expected: Outputs
) -> Iterator[Output]:
    """The sum, and then its statistics."""
    for output in elementwise(problem, results[1:], expected[1:]):
        yield output._replace(name="the sum")
    yield from compare_statistics(problem, results, expected)
