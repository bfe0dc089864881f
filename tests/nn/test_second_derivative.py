"""Second derivatives raise or are right, also of the layer nearest to the loss.

There no incoming gradient depends on anything, while the layer's own gradients do.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

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


def function_of(name):
    """A function of one tensor that a step without a second derivative computes, and the tensor."""
    if name == "scores":
        network = last_layer(method=supermask(0.5))
        key, start = "1.0.scores", network[1][0].scores
        return lambda scores: functional_call(network, {key: scores}, (images(),)), start
    if name == "learned":
        network = last_layer(learned=0.5)
        key, start = "1.0.learned", network[1][0].learned
        return lambda learned: functional_call(network, {key: learned}, (images(),)), start
    if name in LAYERS:
        return last_layer(**LAYERS[name]), images()
    norm = nn.BatchNorm2d(3).double()
    steps = {
        "bn_relu": lambda x: bn_relu(x, norm),
        "BNReLUConv2d": BNReLUConv2d(norm, nn.Conv2d(3, 4, 3).double()),
        "sum_bn_relu_convs": lambda x: sum_bn_relu_convs(x, x.detach(), norm, convs)[1],
        "a dense block": make_block(),
    }
    convs = [MaskedConv2d(3, 4, 3, learned=2).double() for _ in range(2)]
    return steps[name], images(6 if name == "a dense block" else 3)


def by_penalty(compute, x):
    penalty(gradient_of(compute, x)).backward()


def by_the_inputs_of_grad(compute, x):
    """PyTorch takes a tensor that no path leads to for one without a gradient."""
    return torch.autograd.grad(gradient_of(compute, x).sum(), x, allow_unused=True)


def by_the_inputs_of_backward(compute, x):
    (penalty(gradient_of(compute, x)) + compute(x).sum()).backward(inputs=[x])


def by_hessian(compute, x):
    return torch.autograd.functional.hessian(lambda x: compute(x).square().sum(), x)


def by_jvp(compute, x):
    """Two passes of backward."""
    return torch.autograd.functional.jvp(compute, x, torch.ones_like(x))


def gradient_of(compute, x):
    return torch.autograd.grad(compute(x).square().sum(), x, create_graph=True)[0]


WAYS = [by_penalty, by_the_inputs_of_grad, by_the_inputs_of_backward, by_hessian, by_jvp]
MESSAGES = {
    **dict.fromkeys((*LAYERS, "learned"), "MaskedConv2d"),
    **{name: name for name in ("a dense block", "BNReLUConv2d", "sum_bn_relu_convs")},
    "bn_relu": "BatchNorm and ReLU in one step",
    "scores": "a supermask",
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_is_refused(name, way):
    compute, start = function_of(name)
    with pytest.raises(RuntimeError, match=f"the second derivative of {MESSAGES[name]} is not su"):
        way(compute, start)


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
