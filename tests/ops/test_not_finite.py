"""NaN and infinities propagate through every operator as in PyTorch, and no further."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from cpu_backends import cpu_backends
from exact import NAN, VALUES, assert_same, exact_weight_grad, poisoned, poisoned_problems
from test_bn_relu import ALL, EPS, expected_of
from test_weight_grad import DTYPES, SHAPES, make_problem
from torch import nn
from torch.nn import functional as F

from maskedconv import BNReLUConv2d, MaskedConv2d, models
from maskedconv.ops.bn_relu import BACKENDS as BN_RELU
from maskedconv.ops.bn_relu import Normalisation, NormProblem
from maskedconv.ops.weight_grad import BACKENDS as WEIGHT_GRAD


@pytest.mark.parametrize(
    ("dtype", "prologue"),
    [*product(DTYPES, (False, True))],
    ids=str,
)
@pytest.mark.parametrize(
    ("shape", "channels", "filters"),
    [*((shape, *sizes) for shape in SHAPES for sizes in ((20, 5), (3, 14))),
     ("3x3", 1, 2), ("7x7/2", 6, 5), ("3x3", 33, 17)],
)  # fmt: skip
def test_weight_grad_of_the_native_kernel(shape, channels, filters, dtype, prologue):
    backend = WEIGHT_GRAD["native"]
    plain = make_problem(SHAPES[shape], channels, filters, (7, 9), dtype=dtype, prologue=prologue)
    if reason := backend.cannot_run(plain):
        pytest.skip(reason)
    for problem in poisoned_problems(plain):
        limit = max(1e-5, 3 * torch.finfo(dtype).eps)
        assert_same(backend.run(problem), exact_weight_grad(problem), limit)


def test_the_exact_gradient_is_pytorchs():
    """In float32, PyTorch's library skips the padding. In float64 it does not, so that
    NaN and infinities reach more elements; the others are equal."""
    for problem in poisoned_problems(make_problem(SHAPES["3x3"], 16, 8, (8, 8))):
        expected = exact_weight_grad(problem)
        assert not expected.isfinite().all()
        found = WEIGHT_GRAD["reference"].run(
            problem._replace(input=problem.input.double(), grad_output=problem.grad_output.double())
        )
        finite = found.isfinite()
        assert expected.isfinite()[finite].all()
        assert_same(found[finite], expected[finite], 1e-12)


def norm_problem(where, value, uses_batch_stats):
    """A problem and the gradient of its result; ``value`` is one element of ``where``."""
    parts = {
        "input": torch.randn(3, 19, 5, 4).contiguous(memory_format=torch.channels_last),
        "grad": torch.randn(3, 19, 5, 4).contiguous(memory_format=torch.channels_last),
        **{name: torch.rand(19) + 0.5 for name in ("weight", "bias", "mean", "var")},
    }
    index = (1, 2, 3, 1) if parts[where].dim() == 4 else 2
    parts[where] = poisoned(parts[where], index, value)
    if uses_batch_stats:
        parts["var"], parts["mean"] = torch.var_mean(parts["input"], (0, 2, 3), correction=0)
    weight, bias, *moments = (parts[name] for name in ("weight", "bias", "mean", "var"))
    norm = Normalisation.of_moments(weight, bias, moments, EPS, uses_batch_stats)
    return NormProblem(parts["input"], norm), parts["grad"]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    ("where", "uses_batch_stats"),
    [*product(("input", "grad", "weight", "bias"), (False, True)), ("mean", False), ("var", False)],
)
@pytest.mark.parametrize("backend", cpu_backends(BN_RELU))
def test_bn_relu(backend, where, uses_batch_stats, value):
    problem, grad = norm_problem(where, value, uses_batch_stats)
    if reason := BN_RELU[backend].cannot_run(problem):
        pytest.skip(reason)
    result, grads = expected_of(problem, grad)
    assert_same(BN_RELU[backend].run(problem), result, 2e-5)
    found = BN_RELU[backend].run_backward(problem, grad, ALL)
    for value, expected in zip(found, grads, strict=True):
        assert_same(value, expected, 2e-5)


def test_where_the_relu_is_closed_a_gradient_of_nan_is_zero():
    for backend in BN_RELU.values():
        input = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
        zero, one = torch.zeros(1), torch.ones(1)
        moments = zero, one - EPS
        norm = Normalisation.of_moments(None, None, moments, EPS, False)
        problem = NormProblem(input, norm)
        if not backend.cannot_run(problem):
            grad = torch.full_like(input, NAN)
            found = backend.run_backward(problem, grad, ALL)[0]
            assert found.isnan().flatten().tolist() == [False, True]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("where", ["input", "bn.weight", "bn.bias", "grad"])
@pytest.mark.parametrize("value", VALUES)
def test_a_fused_block_as_three_modules(value, where, training):
    """The layer's operators with the usual dispatch, against modules in float64."""
    bn, conv = nn.BatchNorm2d(20), MaskedConv2d(20, 8, 3, padding=1, learned=0.5, bias=False)
    input = torch.randn(2, 20, 7, 7).contiguous(memory_format=torch.channels_last)
    grad = torch.randn(2, 8, 7, 7).contiguous(memory_format=torch.channels_last)
    if where == "input":
        input = poisoned(input, (1, 2, 0, 3), value)
    elif where == "grad":
        grad = poisoned(grad, (1, 2, 0, 3), value)
    else:
        getattr(bn, where[3:]).data[2] = value
    block = BNReLUConv2d(bn, conv).train(training)
    input.requires_grad_()
    output = block(input)
    output.backward(grad)
    expected, gradients = modules_of(block, input, grad, training)
    assert_same(output.detach(), expected, 1e-4)
    found = (input.grad, bn.weight.grad, bn.bias.grad, conv.learned.grad)
    for gradient, value64 in zip(found, gradients, strict=True):
        finite = value64.isfinite()
        assert gradient.isfinite()[finite].all()
        assert_same(gradient[finite], value64[finite], 1e-4)
    everything_is_finite = all(bool(part.isfinite().all()) for part in (output, *found))
    assert not everything_is_finite or value == -torch.inf


def modules_of(block, input, grad, training):
    """The output and the gradients of input, γ, β and the learned filters."""
    bn = nn.BatchNorm2d(20).double().train(training)
    bn.weight.data.copy_(block.bn.weight.data)
    bn.bias.data.copy_(block.bn.bias.data)
    x = input.detach().double().requires_grad_()
    weight = block.conv.weight.detach().double().requires_grad_()
    output = F.conv2d(F.relu(bn(x)), weight, None, padding=1)
    output.backward(grad.double())
    count = block.conv.learned.size(0)
    return output.detach(), (x.grad, bn.weight.grad, bn.bias.grad, weight.grad[:count])


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ["densenet_bc_16_12", "wrn_16_1", "resnet_14"])
def test_a_network_with_nan_in_one_layer_has_a_loss_of_nan(name, training):
    torch.manual_seed(0)
    network = models.create(name, learned=0.1).to(memory_format=torch.channels_last)
    layers = [layer for layer in network.modules() if isinstance(layer, MaskedConv2d)]
    layers[len(layers) // 2].learned.data.fill_(NAN)
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    loss = F.cross_entropy(network.train(training)(images), torch.tensor([0, 1]))
    assert loss.isnan()
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert any(gradient.isnan().any() for gradient in gradients)
