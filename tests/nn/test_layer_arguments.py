"""MaskedConv2d refuses bad arguments and inputs with an error that names them."""

from __future__ import annotations

import pytest
import torch

from maskedconv.nn import MaskedConv2d


@pytest.mark.parametrize(
    ("learned", "error", "message"),
    [
        (-1, ValueError, "learned is -1; expected a count >= 0"),
        (1.5, ValueError, "learned is 1.5; expected a fraction"),
        (float("nan"), ValueError, "learned is nan"),
        (65, ValueError, "learned is 65 filters, but the convolution has only 64"),
        (True, TypeError, "learned is True"),
        ("0.1", TypeError, "learned is '0.1'"),
        (None, TypeError, "learned is None"),
    ],
)
def test_bad_learned(learned, error, message):
    with pytest.raises(error, match=message):
        MaskedConv2d(3, 64, 3, learned=learned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slice_dim": 4}, "slice_dim is 4; expected one of 0"),
        ({"slice_dim": -1}, "slice_dim is -1"),
        ({"frozen": "zeros"}, "frozen is 'zeros'; expected one of random, zero"),
        ({"groups": 5}, "divisible by groups"),
        ({"padding_mode": "mirror"}, "padding_mode"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MaskedConv2d(4, 8, 3, learned=0.5, **options)


def test_bad_input():
    layer = MaskedConv2d(4, 6, 3, padding=1, learned=2)
    with pytest.raises(ValueError, match="input has 3 channels; expected 4"):
        layer(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="input has 2 dimensions"):
        layer(torch.randn(4, 8))
    with pytest.raises(
        TypeError, match=r"input is torch.float64, but the filters are torch.float32"
    ):
        layer(torch.randn(1, 4, 8, 8, dtype=torch.float64))
    with pytest.raises(TypeError, match="seed is 'a'"):
        MaskedConv2d(4, 6, 3, padding=1, learned=2, seed="a")
