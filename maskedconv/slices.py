"""The learned part of a weight: its size, and checks of arguments.

The learned slice is the first ``n`` indices of one of the four dimensions of the weight
``[O, I / groups, kH, kW]`` (Rosenfeld & Tsotsos 2018, section 3). This module imports no torch.
"""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Literal, cast, get_args

from maskedconv.checks import check_choice, check_fraction

Frozen = Literal["random", "zero"]
FROZEN_MODES: tuple[str, ...] = get_args(Frozen)
SLICE_DIMS = {0: "output filters", 1: "input channels", 2: "kernel rows", 3: "kernel columns"}


def check_slice_dim(slice_dim: int) -> int:
    """Returns ``slice_dim``; ValueError unless it is one of the four dimensions of a weight."""
    if isinstance(slice_dim, bool) or slice_dim not in SLICE_DIMS:
        names = ", ".join(f"{dim} ({name})" for dim, name in SLICE_DIMS.items())
        raise ValueError(f"slice_dim is {slice_dim!r}; expected one of {names}")
    return int(slice_dim)


def check_frozen(frozen: str) -> Frozen:
    """Returns ``frozen``; ValueError unless it is "random" or "zero"."""
    return cast(Frozen, check_choice("frozen", frozen, FROZEN_MODES))


def check_learned(learned: object) -> float | int:
    """Returns ``learned`` as a Python float in [0, 1] or an int >= 0.

    Raises:
        TypeError: it is not a number, or a bool.
        ValueError: it is NaN, a fraction outside [0, 1], or a negative count.
    """
    if isinstance(learned, bool) or not isinstance(learned, Real):
        raise TypeError(
            f"learned is {learned!r} ({type(learned).__name__}); "
            "expected a float in [0, 1] (a fraction) or an int >= 0 (a count)"
        )
    if isinstance(learned, Integral):
        if learned < 0:
            raise ValueError(f"learned is {int(learned)}; expected a count >= 0")
        return int(learned)
    fraction = float(learned)
    if math.isnan(fraction) or not 0.0 <= fraction <= 1.0:
        raise ValueError(
            f"learned is {fraction}; expected a fraction in [0, 1] (a count is an int)"
        )
    return fraction


def check_seed(seed: object) -> None:
    """TypeError unless ``seed`` is an int or None."""
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f"seed is {seed!r} ({type(seed).__name__}); expected an int or None")


def num_learned(learned: object, size: int, slice_dim: int = 0) -> int:
    """The number of learned indices among the ``size`` indices of dimension ``slice_dim``.

    A float is a fraction. The result is the floor of the exact decimal product (0.7 of 90 is 63).
    An int is a count. For output filters (dimension 0) there is no minimum, and a count beyond
    ``size`` is an error. For the other dimensions, as in the authors' code, a positive fraction
    learns at least one index, and a count is clipped to ``size``.

    Raises:
        TypeError, ValueError: as :func:`check_learned`; a count beyond the number of filters.
    """
    asked = check_learned(learned)
    if isinstance(asked, int):
        if slice_dim == 0 and asked > size:
            raise ValueError(
                f"learned is {asked} filters, but the convolution has only {size}; "
                f"expected a count from 0 to {size}, or a fraction as a float"
            )
        return min(asked, size)
    count = int((Decimal(repr(asked)) * size).to_integral_value(ROUND_FLOOR))
    if slice_dim != 0 and asked > 0:
        count = max(1, count)
    return count


def kept_ratio(k: float) -> tuple[int, int]:
    """The numerator and denominator of the decimal number ``k``, exactly.

    Raises:
        TypeError, ValueError: as :func:`maskedconv.checks.check_fraction`, for ``k``.
    """
    return Fraction(repr(check_fraction("k", k))).as_integer_ratio()


def num_kept(k: float, size: int) -> int:
    """The number of weights that a supermask keeps among ``size``.

    The floor of ``(1 - k) * size`` weights is masked out, as in edge-popup's public code, but it is
    the floor of the exact decimal product: 0.9 of 10 is 9. In floating point,
    ``int((1 - 0.9) * 10)`` is 0, and all 10 would be kept.

    Raises:
        TypeError, ValueError: as :func:`maskedconv.checks.check_fraction`, for ``k``.
    """
    return kept_of_ratio(kept_ratio(k), size)


def kept_of_ratio(ratio: tuple[int, int], size: int) -> int:
    """:func:`num_kept` of the fraction ``ratio``, by integers alone, which torch.compile traces."""
    numerator, denominator = ratio
    return size - (denominator - numerator) * size // denominator


def nested_kept(k: float, coats: int, size: int) -> tuple[int, ...]:
    """The numbers of weights that the nested masks of a multicoated supermask keep among ``size``.

    The first mask keeps :func:`num_kept`, and the i-th of the ``coats`` masks, counted from 0, the
    fraction ``k * (coats - i) / coats``, rounded up. Okoshi et al. 2022 (Proceedings of Machine
    Learning Research 162) overlay such masks; this rule for their sizes is our own. Computed
    exactly.

    Raises:
        TypeError, ValueError: as :func:`maskedconv.checks.check_fraction`, for ``k``.
    """
    exact = Fraction(repr(check_fraction("k", k))) * size
    return tuple(math.ceil(exact * (coats - i) / coats) for i in range(coats))


def check_indices(which: object, count: int, size: int) -> tuple[int, ...] | None:
    """The learned indices in ascending order; None if they are the first ``count`` of ``size``.

    Raises:
        TypeError: ``which`` is neither None nor a sequence of ints.
        ValueError: there are not ``count`` of them, or one is outside of [0, size) or twice there.
    """
    if which is None:
        return None
    if not isinstance(which, list | tuple | range) or {type(one) for one in which} - {int}:
        raise TypeError(f"which is {which!r}; expected None or a list of ints")
    if len(which) != count:
        raise ValueError(f"which has {len(which)} indices; expected the {count} that are learned")
    numbers = tuple(sorted(set(which)))
    if len(numbers) != count or any(not 0 <= index < size for index in numbers):
        raise ValueError(f"which is {which!r}; expected different indices from 0 to {size - 1}")
    return None if numbers == tuple(range(count)) else numbers
