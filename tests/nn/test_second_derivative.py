"""Second derivatives raise or are right, also of the layer nearest to the loss.

There no incoming gradient depends on anything, while the layer's own gradients do.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from maskedconv import convert_, merge_
from maskedconv.functional.binary import binary_sign
from maskedconv.methods import biprop, random_positions, supermask
from maskedconv.nn import BNReLUConv2d, MaskedConv2d, bn_relu, sum_bn_relu_convs
from tests.nn.test_dense_block import make_block

REFUSED = "the second derivative of .* is not supported"
LAYERS = {
    "first filters": {"learned": 0.5},
    "input channels": {"learned": 0.5, "slice_dim": 1},
    "last filters": {"learned": 0.5, "which": "last"},
    "zero filters": {"learned": 0.5, "frozen": "zero"},
}
# Their weight is a tensor of autograd, and PyTorch computes the convolution.
DIFFERENTIABLE = {
    "no filters": {"learned": 0, "frozen": "zero"},
    "random positions": {"method": random_positions(10)},
    "supermask": {"method": supermask(0.5)},
    "biprop": {"method": biprop(0.5)},
}


def images(channels=3):
    torch.manual_seed(1)
    return torch.randn(2, channels, 6, 6, dtype=torch.float64, requires_grad=True)


def last_layer(**options):
    """A network with a non-linearity, and a converted layer behind it."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2))
    last = convert_(nn.Sequential(nn.Conv2d(4, 4, 3, bias=False)), rest="learn", **options)
    return nn.Sequential(first, last).double()


def penalty(gradient):
    """Gradient penalty of a Wasserstein GAN (Gulrajani et al. 2017, arXiv 1704.00028)."""
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def input_gradient(network, **options):
    x = images()
    return torch.autograd.grad(network(x).sum(), x, **options)[0]


@pytest.mark.parametrize("name", LAYERS)
def test_of_the_last_layer(name):
    network = last_layer(**LAYERS[name])
    gradient = input_gradient(network, create_graph=True)
    assert torch.equal(gradient, input_gradient(network))
    with pytest.raises(RuntimeError, match=REFUSED):
        penalty(gradient).backward()


def step(x):
    return BNReLUConv2d(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)).double()(x)


def shared_step(x):
    convs = [MaskedConv2d(3, 4, 3, learned=2).double() for _ in range(2)]
    total, *outputs = sum_bn_relu_convs(x, x.detach(), nn.BatchNorm2d(3).double(), convs)
    return total.sum() + sum(output.sum() for output in outputs)


@pytest.mark.parametrize(
    "compute",
    [step, shared_step, lambda x: bn_relu(x, nn.BatchNorm2d(3).double())],
    ids=["BNReLUConv2d", "sum_bn_relu_convs", "bn_relu"],
)
def test_of_a_step(compute):
    x = images()
    (gradient,) = torch.autograd.grad(compute(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSED):
        penalty(gradient).backward()


def test_of_a_dense_block():
    x = images(6)
    (gradient,) = torch.autograd.grad(make_block()(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="of a dense block is not supported"):
        penalty(gradient).backward()


@pytest.mark.parametrize(
    ("options", "name", "kind"),
    [
        ({"learned": 0.5}, "learned", "MaskedConv2d"),
        ({"method": supermask(0.5)}, "scores", "a supermask"),
    ],
    ids=["first filters", "supermask"],
)
def test_of_a_parameter(options, name, kind):
    network = last_layer(**options)
    values = getattr(network[1][0], name)
    (gradient,) = torch.autograd.grad(network(images()).sum(), values, create_graph=True)
    with pytest.raises(RuntimeError, match=f"of {kind} is not supported"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("options", [*LAYERS.values(), *DIFFERENTIABLE.values()], ids=str)
def test_by_torch_func(options):
    """The remedy that the message names."""
    network = last_layer(**options)
    loss = penalty(torch.func.grad(lambda x: network(x).sum())(images().detach()))
    loss.backward()
    plain = merge_(copy.deepcopy(network))
    expected = penalty(input_gradient(plain, create_graph=True))
    assert torch.allclose(loss, expected)
    learned = network[0][0].weight.grad
    assert torch.allclose(learned, torch.autograd.grad(expected, plain[0][0].weight)[0])


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_of_a_layer_that_has_them(name):
    networks = [last_layer(**DIFFERENTIABLE[name])]
    networks.append(merge_(copy.deepcopy(networks[0])))
    ours, plain = (
        torch.autograd.grad(
            penalty(input_gradient(network, create_graph=True)) + network(images()).sum(),
            network[0][0].weight,
        )[0]
        for network in networks
    )
    assert torch.allclose(ours, plain)


def test_of_the_binary_sign():
    x = torch.tensor([-2.0, -0.25, 0.5], requires_grad=True)
    (gradient,) = torch.autograd.grad(binary_sign(x).sum(), x, create_graph=True)
    assert torch.autograd.grad(gradient.sum(), x)[0].tolist() == [0, 2, -2]


@pytest.mark.parametrize("create_graph", [False, True])
def test_of_a_batch_of_gradients(create_graph):
    network, x = last_layer(learned=0.5), images()[:1]
    options = {"vectorize": True, "create_graph": create_graph}
    if create_graph:
        with pytest.raises(RuntimeError, match=REFUSED):
            torch.autograd.functional.jacobian(network, x, **options)
    else:
        expected = torch.autograd.functional.jacobian(network, x)
        assert torch.allclose(torch.autograd.functional.jacobian(network, x, **options), expected)


def test_of_a_compiled_network():
    network = torch.compile(last_layer(learned=0.5), backend="aot_eager", fullgraph=True)
    gradient = input_gradient(network, create_graph=True)
    with pytest.raises(RuntimeError, match="not currently support double backward"):
        penalty(gradient).backward()
