"""MaskedConv2d refuses bad arguments and inputs with an error that names them."""

from __future__ import annotations

import pytest
import torch

from maskedconv.functional.convolution import masked_conv2d
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


def test_type_of_the_input_of_a_layer_that_learns_nothing():
    """Zeros have no type. Frozen filters follow half precision, as under FSDP2, and no other."""
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    layer = MaskedConv2d(4, 6, 3, learned=0)
    with pytest.raises(TypeError, match=r"input is torch.float64, but the filters are torch.float"):
        layer(x)
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(layer(x.to(dtype)), layer.to_conv2d().to(dtype)(x.to(dtype)))
    zeros = MaskedConv2d(4, 6, 3, learned=0, frozen="zero")
    assert zeros(x).dtype == torch.float64
    with pytest.raises(TypeError, match=r"input is torch.int64, but the filters are torch.float32"):
        zeros(x.long())


def test_complex_filters_are_refused():
    with pytest.raises(TypeError, match=r"dtype is torch.complex64; expected a real"):
        MaskedConv2d(4, 6, 3, learned=2, dtype=torch.complex64)


@pytest.mark.parametrize("slice_dim", range(4))
def test_no_bias_as_in_conv2d(slice_dim):
    layer = MaskedConv2d(4, 6, 3, bias=None, learned=2, slice_dim=slice_dim)
    assert layer.bias is None
    assert not layer.has_bias
    assert layer(torch.randn(1, 4, 5, 5)).shape == (1, 6, 3, 3)


@pytest.mark.parametrize(
    ("input", "filters"),
    [(torch.uint8, torch.float32), (torch.int64, torch.float32), (torch.float32, torch.float64)],
    ids=str,
)
def test_autocast_converts_what_it_does_for_conv2d(input, filters):
    layer = MaskedConv2d(4, 6, 3, learned=2, dtype=filters)
    x = torch.ones(1, 4, 5, 5, dtype=input)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError):
            layer.to_conv2d()(x)
        with pytest.raises(TypeError, match=f"input is {input}, but the filters are {filters}"):
            layer(x)


FROZEN = {"jointly": ((16, 20, 1, 1), 0, 12)} | {
    f"dim{dim}": ((8, 8, 3, 3), dim, 2) for dim in range(4)
}


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", FROZEN)
def test_frozen_filters_get_no_gradient(name, traced):
    """PyTorch may compute the gradient of all filters, if that is the fastest."""
    shape, slice_dim, count = FROZEN[name]
    parts = torch.randn(shape).tensor_split([count], slice_dim)
    learned, frozen = (part.clone().requires_grad_() for part in parts)
    biases = [torch.ones(n, requires_grad=True) for n in (count, shape[0] - count)]
    x = torch.randn(3, shape[1], 6, 6)

    def compute(x):
        given = biases if slice_dim == 0 else ()
        return masked_conv2d(x, learned, frozen, *given, slice_dim=slice_dim).sum()

    out = torch.func.vmap(lambda x: compute(x[None]))(x).sum() if traced else compute(x)
    out.backward()
    assert learned.grad is not None
    assert frozen.grad is None
    assert biases[1].grad is None
