"""Numbers and pairs of numbers as nn.Conv2d takes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from maskedconv import BNReLUConv2d, MaskedConv2d, masked_conv2d

VALUES = {
    "np.int64": np.int64(1),
    "one": (1,),
    "list": [2, 1],
    "np.int64 pair": (np.int64(1), 2),
    "array": tuple(np.array([2, 1])),
    "torch.Size": torch.Size((1, 2)),
    "torch.Size of one": torch.Size((2,)),
}
ARGUMENTS = ("stride", "padding", "dilation")


@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("name", VALUES)
def test_as_in_conv2d(name, argument, frozen):
    options = {argument: VALUES[name]}
    layer = MaskedConv2d(4, 6, 3, learned=2, frozen=frozen, **options)
    plain = nn.Conv2d(4, 6, 3, **options)
    plain.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    assert getattr(layer, argument) == getattr(plain, argument)
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    out, expected = layer(x), plain(x)
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad(y.square().sum(), [x])[0] for y in (out, expected)]
    torch.testing.assert_close(*grads)
    function = masked_conv2d(
        x, layer.learned, layer.frozen, layer.bias_learned, layer.bias_frozen,
        zeros=layer.num_zeros, **options,
    )  # fmt: skip
    torch.testing.assert_close(function, expected)
    bn = nn.BatchNorm2d(4).eval()
    torch.testing.assert_close(BNReLUConv2d(bn, layer)(x), plain(bn(x).relu()))
    torch.testing.assert_close(BNReLUConv2d(bn, plain)(x), plain(bn(x).relu()))


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_in_compiled_code(argument):
    layer = MaskedConv2d(4, 6, 3, learned=2, **{argument: (np.int64(2),)})
    x = torch.randn(2, 4, 9, 9)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_what_is_no_pair(argument):
    with pytest.raises(ValueError, match=rf"{argument} is \(1, 2, 3\); expected one int or"):
        MaskedConv2d(4, 6, 3, learned=2, **{argument: (1, 2, 3)})
    with pytest.raises(TypeError, match=rf"{argument} is 1.5; expected an int"):
        MaskedConv2d(4, 6, 3, learned=2, **{argument: 1.5})
    with pytest.raises(TypeError, match=rf"{argument} is 1.5; expected an int"):
        masked_conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), **{argument: 1.5})
