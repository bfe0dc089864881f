"""torch.func.vmap and grad take layers of every method, also in compiled code."""

from __future__ import annotations

import pytest
import torch
from test_summary import METHODS, network
from torch import nn
from torch.func import functional_call, grad, jvp, vjp, vmap

from maskedconv import MaskedConv2d, convert_
from maskedconv.functional.binary import binary_sign
from maskedconv.nn import BNReLUConv2d


@pytest.mark.parametrize("name", METHODS)
def test_members_under_vmap(name):
    model, x = convert_(network(), method=METHODS[name], seed=0).double(), torch.randn(2, 3, 6, 6)
    x = x.double()
    model(x)  # BatchNorm has statistics
    model.eval()
    learned = {key: p.detach() for key, p in model.named_parameters()}
    members = [learned, {key: 0.5 * p + 0.01 for key, p in learned.items()}]
    stacked = {key: torch.stack([one[key] for one in members]) for key in learned}

    def loss(values):
        return functional_call(model, values, (x,)).square().sum()

    losses, gradients = vmap(loss)(stacked), vmap(grad(loss))(stacked)
    for index, one in enumerate(members):
        leaves = {key: value.clone().requires_grad_() for key, value in one.items()}
        expected = loss(leaves)
        torch.testing.assert_close(losses[index], expected)
        for key, value in zip(
            leaves, torch.autograd.grad(expected, list(leaves.values())), strict=True
        ):
            torch.testing.assert_close(gradients[key][index], value)


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, backend="eager", fullgraph=True)


@pytest.mark.parametrize("name", METHODS)
def test_compiled_gradients(name):
    model, x = convert_(network(), method=METHODS[name], seed=0), torch.randn(2, 3, 6, 6)
    model(x)  # BatchNorm has statistics
    model.eval()
    learned = {key: p.detach() for key, p in model.named_parameters()}

    def gradients(values, x):
        return grad(lambda *both: functional_call(model, *both).square().sum(), (0, 1))(values, x)

    expected = gradients(learned, x)
    assert expected[1].count_nonzero()
    torch.testing.assert_close(compiled(gradients)(learned, x), expected)


LAYERS = {
    "all_frozen": MaskedConv2d(3, 6, 3, learned=0),
    "binary_sign": binary_sign,
    "bn_relu_conv": BNReLUConv2d(nn.BatchNorm2d(3).eval(), MaskedConv2d(3, 6, 3, learned=2)),
    "slice": MaskedConv2d(3, 6, 3, learned=2),
}
TRANSFORMS = {
    "grad": lambda layer, x: grad(lambda x: layer(x).square().sum())(x),
    "jvp": lambda layer, x: jvp(layer, (x,), (x,))[1],
    "vjp": lambda layer, x: vjp(layer, x)[1](layer(x))[0],
    "vmap": lambda layer, x: vmap(lambda x: layer(x))(x[:, None]),
}
PAIRS = [
    (name, transform)
    for name in sorted(LAYERS)
    for transform in sorted(TRANSFORMS)
    # PyTorch compiles no jvp of nn.BatchNorm2d.
    if (name, transform) != ("bn_relu_conv", "jvp")
]


@pytest.mark.parametrize(("name", "transform"), PAIRS)
def test_compiled_transforms(name, transform):
    layer, x = LAYERS[name], torch.randn(2, 3, 6, 6)

    def compute(x):
        return TRANSFORMS[transform](layer, x)

    expected = compute(x)
    assert expected.count_nonzero()
    torch.testing.assert_close(compiled(compute)(x), expected)
