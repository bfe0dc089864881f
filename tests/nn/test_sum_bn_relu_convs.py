"""A sum, BatchNorm, ReLU and convolutions as one step, against the modules one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from bn_relu_layers import FORMATS, MODES, images, norm_of
from torch import nn
from torch.nn import functional as F

from bench.saved_bytes import saved_bytes
from maskedconv import models
from maskedconv.functional import bn_relu_autograd
from maskedconv.models import wrn
from maskedconv.nn import MaskedConv2d, bn_relu_convs, sum_bn_relu_convs


@pytest.fixture
def fused(monkeypatch):
    """Counts the calls of the Function with a sum."""
    found = []
    function = bn_relu_autograd.SumBatchNormReLUConvolutions

    def counted(plan, total, *rest):
        found.append(total)
        return function.apply(plan, total, *rest)

    target = "maskedconv.nn.bn_relu_conv2d.SumBatchNormReLUConvolutions"
    monkeypatch.setattr(target, type("Counted", (), {"apply": staticmethod(counted)}))
    return found


def modules(slice_dim=0, frozen="random", dtype=torch.float64):
    options = {"learned": 0.5, "slice_dim": slice_dim, "frozen": frozen, "dtype": dtype}
    convs = [MaskedConv2d(6, 8, 3, padding=1, **options), MaskedConv2d(6, 8, 1, **options)]
    return [norm_of(dtype=dtype), *convs]


def one_by_one(x, summand, bn, convs):
    total = x + summand
    activation = F.relu(bn(total))
    return total, *(conv(activation) for conv in convs)


def results(run, x, summand, layers, uses=(True, True, True)):
    """Outputs, gradients of the operands and parameters, and buffers; ``uses`` selects outputs."""
    bn, *convs = copy.deepcopy(layers)
    x, summand = (one.detach().clone().requires_grad_(one.requires_grad) for one in (x, summand))
    outputs = run(x, summand, bn, convs)
    used = [out for out, use in zip(outputs, uses, strict=True) if use]
    sum((k + 2.0) * (out.sin() * out).sum() for k, out in enumerate(used)).backward()
    parameters = [part.grad for layer in (bn, *convs) for part in layer.parameters()]
    buffers = [part for layer in (bn, *convs) for part in layer.buffers()]
    return [*(out.detach() for out in outputs), x.grad, summand.grad, *parameters, *buffers]


def assert_equal(x, summand, layers, uses=(True, True, True)):
    found = results(sum_bn_relu_convs, x, summand, layers, uses)
    expected = results(one_by_one, x, summand, layers, uses)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def operands(memory_format=torch.channels_last, dtype=torch.float64):
    size = (3, 6, 7, 5)
    x, summand = (images(*size, dtype=dtype, memory_format=memory_format) for _ in range(2))
    return x.requires_grad_(), summand.requires_grad_()


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_equals_the_modules(slice_dim, frozen, memory_format, fused):
    assert_equal(*operands(memory_format), modules(slice_dim, frozen))
    # Zero input channels, rows and columns are left out of the input, convolution by convolution.
    assert len(fused) == (slice_dim == 0 or frozen == "random")


@pytest.mark.parametrize("uses", [(True, False, False), (False, True, False), (False, True, True)])
def test_outputs_that_nothing_depends_on(uses, fused):
    layers = modules()
    assert_equal(*operands(), layers, uses)
    assert len(fused) == 1


@pytest.mark.parametrize("frozen", ["x", "summand", "norm", "filters"])
def test_what_needs_no_gradient_gets_none(frozen, fused):
    x, summand = operands()
    layers = modules()
    x.requires_grad_(frozen != "x")
    summand.requires_grad_(frozen != "summand")
    layers[0].requires_grad_(frozen != "norm")
    for conv in layers[1:]:
        conv.requires_grad_(frozen != "filters")
    assert_equal(x, summand, layers)
    assert len(fused) == 1


def test_gradcheck():
    x, summand = operands()
    bn, conv, shortcut = modules()
    parameters = [part for layer in (bn, conv, shortcut) for part in layer.parameters()]

    def run(x, summand, *_):
        return sum_bn_relu_convs(x, summand, bn, (conv, shortcut))

    torch.autograd.gradcheck(run, (x, summand, *parameters))


def test_gradients_of_others_do_not_change():
    """The gradient of the sum may be held by someone else, as by a hook."""
    x, summand = operands()
    held = []
    total, out, _ = sum_bn_relu_convs(x, summand, *_bn_and_convs(modules()))
    seen = total * 1.0
    seen.register_hook(lambda grad: held.append((grad, grad.clone())))
    (seen.sin().sum() + out.sum()).backward()
    assert all(torch.equal(grad, before) for grad, before in held)
    assert held


@pytest.mark.parametrize("expanded", [False, True])
def test_the_gradient_of_the_sum_in_other_memory(expanded):
    layers = [layer.float() for layer in modules()]
    x, summand = operands(dtype=torch.float32)
    given = torch.randn(x.shape)
    given = given[:, :1, :1, :1].expand_as(given) if expanded else given

    def gradients(run):
        total, out, _ = run(x, summand, *_bn_and_convs(layers))
        return torch.autograd.grad((total, out), (x, summand), (given, torch.ones_like(out)))

    for ours, theirs in zip(gradients(sum_bn_relu_convs), gradients(one_by_one), strict=True):
        torch.testing.assert_close(ours, theirs)


def _bn_and_convs(layers):
    return layers[0], layers[1:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_types_of_the_kernels(dtype, fused):
    """Results are no further from float64 than those of the modules one by one."""
    x, summand = operands(dtype=dtype)
    layers = modules(dtype=dtype)
    doubled = [copy.deepcopy(layer).double() for layer in layers]
    exact = results(one_by_one, x.double().detach().requires_grad_(),
                    summand.double().detach().requires_grad_(), doubled)  # fmt: skip
    found = results(sum_bn_relu_convs, x, summand, layers)
    plain = results(one_by_one, x, summand, layers)
    assert len(fused) == 1
    for ours, theirs, right in zip(found, plain, exact, strict=True):
        error, allowed = ((part.double() - right).abs().max() for part in (ours, theirs))
        roundings = 4 * torch.finfo(dtype).eps * right.abs().max()
        assert error <= 2 * allowed + roundings


@pytest.mark.parametrize(
    "case", ["eval", "shape", "dtype", "hook", "no gradient", "another norm", "memory format"]
)
def test_what_runs_one_by_one(case, fused):
    x, summand = (one.detach() for one in operands())
    bn, *convs = modules()
    if case == "eval":
        bn.eval()
    elif case == "shape":
        summand = summand[:1]
    elif case == "dtype":
        summand = summand.float()
    elif case == "hook":
        convs[0].register_forward_hook(lambda *_: None)
    elif case == "another norm":
        bn = nn.GroupNorm(2, 6, dtype=torch.float64)
    elif case == "memory format":
        summand = summand.contiguous()
    needs = case != "no gradient"
    if needs:
        assert_equal(x.requires_grad_(), summand.requires_grad_(), [bn, *convs])
    else:
        expected = one_by_one(x, summand, bn, convs)
        for ours, theirs in zip(sum_bn_relu_convs(x, summand, bn, convs), expected, strict=True):
            torch.testing.assert_close(ours, theirs)
    assert not fused


def make_network(seed=0):
    model = models.create("wrn_16_1", learned=0.5, seed=seed).double()
    return model.to(memory_format=torch.channels_last)


def network_results(model, intercepted=False):
    model = copy.deepcopy(model)
    if intercepted:  # then each module is called
        model.block2[0].register_forward_hook(lambda *_: None)
    torch.manual_seed(0)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64).to(memory_format=torch.channels_last)
    out = model(x)
    out.sin().sum().backward()
    return [out, *(part.grad for part in model.parameters()), *model.buffers()]


def test_wide_resnet(fused):
    model = make_network()
    found = network_results(model)
    assert len(fused) == 5  # of 6 blocks, all but the first
    expected = network_results(model, intercepted=True)
    assert len(fused) == 5
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_the_sum_keeps_no_more_for_backward():
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64).to(memory_format=torch.channels_last)
    model = make_network()
    own = [*model.parameters(), *model.buffers()]
    whole = saved_bytes(lambda: model(x), own)
    model.block1.register_forward_hook(lambda *_: None)
    assert whole <= saved_bytes(lambda: model(x), own)


def test_another_block_in_the_network():
    """A block of the user's is called as a module."""

    class Own(nn.Module):
        def forward(self, x):
            return 2 * x

    model = make_network()
    expected = network_results(model)[0]
    model.block1[1] = Own()
    other = network_results(model)[0]
    assert other.shape == expected.shape
    assert not torch.allclose(other, expected)
    assert isinstance(model.block1[0], wrn.BasicBlock)


def test_the_same_for_a_sum_that_is_there():
    x, summand = operands()
    bn, *convs = modules()
    total = x + summand
    _, *found = sum_bn_relu_convs(x, summand, copy.deepcopy(bn), convs)
    for ours, theirs in zip(found, bn_relu_convs(total, bn, convs), strict=True):
        assert torch.equal(ours, theirs)
