"""The learned slice: exact floors, counts and errors."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskedconv import slices


@given(st.integers(0, 1000), st.integers(0, 4096))
def test_floor_of_a_decimal_fraction_is_exact(thousandths, size):
    expected = Fraction(thousandths, 1000) * size // 1
    assert slices.num_learned(thousandths / 1000, size) == expected


def test_binary_rounding_does_not_lose_a_filter():
    assert int(90 * 0.7) == 62
    assert slices.num_learned(0.7, 90) == 63


@pytest.mark.parametrize(
    ("learned", "size", "slice_dim", "expected"),
    [
        (0.07, 12, 0, 0),  # no minimum for output filters
        (0.07, 12, 1, 1),  # at least one for the other dimensions
        (0.0, 12, 1, 0),
        (0, 12, 1, 0),
        (1, 12, 0, 1),
        (1.0, 12, 0, 12),
        (5, 3, 1, 3),  # a count is clipped
        (0.1, 3, 2, 1),
    ],
)
def test_rules_of_the_dimensions(learned, size, slice_dim, expected):
    assert slices.num_learned(learned, size, slice_dim) == expected


def test_numpy_numbers_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert slices.num_learned(numpy.float64(0.5), 10) == 5
    assert slices.num_learned(numpy.int64(3), 10) == 3


@pytest.mark.parametrize("learned", [-1, 1.5, -0.1, float("nan"), float("inf"), 13])
def test_values_out_of_range(learned):
    with pytest.raises(ValueError, match=rf"learned is {learned}"):
        slices.num_learned(learned, 12)


@pytest.mark.parametrize("learned", [True, "1", None, 1j])
def test_not_a_number(learned):
    with pytest.raises(TypeError, match="learned is"):
        slices.num_learned(learned, 12)


def test_unknown_names():
    with pytest.raises(ValueError, match="slice_dim is 7; expected one of 0"):
        slices.check_slice_dim(7)
    with pytest.raises(ValueError, match="slice_dim is True"):
        slices.check_slice_dim(True)
    with pytest.raises(ValueError, match="frozen is 'none'"):
        slices.check_frozen("none")
