"""The splits that several items share."""

from __future__ import annotations

from collections.abc import Sequence

FROZEN = ("random", "zero")


def splits(slices: Sequence[float | int]) -> list[tuple[float | int, str]]:
    """Every slice, with random and zeroed frozen filters."""
    return [(learned, frozen) for learned in slices for frozen in FROZEN]
