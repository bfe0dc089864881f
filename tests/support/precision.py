"""Judges low-precision results by the error of plain PyTorch modules in the same precision.

A limit that is a number fits the seed, the thread count and the processor it was found with. Here
the limit is the error of plain modules against float64: at most twice that, plus a few roundings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

# Allowed roundings of the largest value if plain modules happen to be exact.
ROUNDINGS = 4

Measure = Callable[[Tensor, Tensor], float]


def largest_error(value: Tensor, exact: Tensor) -> float:
    """The largest deviation from ``exact``, as a fraction of its largest value."""
    if not exact.numel():
        return 0.0
    difference = (value.detach().double() - exact.detach().double()).abs().max()
    return float(difference / exact.detach().double().abs().max().clamp(min=1e-300))


def rms_error(value: Tensor, exact: Tensor) -> float:
    """The norm of the deviation from ``exact``, as a fraction of its norm."""
    difference = (value.detach().double() - exact.detach().double()).norm()
    return float(difference / exact.detach().double().norm().clamp(min=1e-300))


def assert_as_exact(
    ours: Iterable[Tensor],
    plain: Iterable[Tensor],
    exact: Iterable[Tensor],
    name: str = "",
    *,
    measure: Measure = largest_error,
    dtype: torch.dtype | None = None,
    of_seeds: Callable[[Iterable[float]], float] = max,
) -> None:
    """Asserts that ``ours`` errs by at most twice what ``plain`` does, plus a few roundings.

    Args:
        ours, plain, exact: the same result from several seeds: of the package, of plain modules in
            the same precision, and of plain modules in float64.
        measure: the error of one result; ``rms_error`` for networks, where a ReLU that flips makes
            single values differ.
        dtype: the precision computed in, if the results are of a wider type.
        of_seeds: the error of several seeds from that of each: the worst, or ``median`` if one
            seed in some ten has a ReLU that flips, in plain modules as well.
    """
    results = list(zip(ours, plain, exact, strict=True))
    for value, other, _ in results:
        assert value.shape == other.shape, f"{name}: {value.shape}, expected {other.shape}"
    error, allowed = (
        of_seeds([measure(result[i], result[2]) for result in results]) for i in (0, 1)
    )
    eps = torch.finfo(dtype or results[0][1].dtype).eps
    # Written so that a NaN fails.
    assert error <= 2 * allowed + ROUNDINGS * eps, f"{name}: error {error:.3g}, plain {allowed:.3g}"
