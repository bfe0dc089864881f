"""Tensors whose memory does not contain their values, against plain modules in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.testing._internal.two_tensor import TwoTensor

import maskedconv
from maskedconv.nn import BNReLUConv2d
from maskedconv.ops import plain
from maskedconv.ops.pack_filters import BACKENDS as PACKS
from maskedconv.ops.pack_filters import PackProblem, pack_filters
from maskedconv.ops.weight_grad import BACKENDS

SHAPE = (3, 8, 6, 5)
LAST = torch.channels_last
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


class Plain(nn.Module):
    """The three modules of a layer as PyTorch's own modules in float64."""

    def __init__(self, layer):
        super().__init__()
        fused = isinstance(layer, BNReLUConv2d)
        self.bn = copy.deepcopy(layer.bn).double() if fused else None
        self.conv = (layer.conv if fused else layer).to_conv2d().double()

    def forward(self, x):
        return self.conv(x if self.bn is None else F.relu(self.bn(x)))


def masked(**options):
    return maskedconv.MaskedConv2d(8, 16, 3, padding=1, learned=4, seed=0, **options)


def fused(**options):
    return BNReLUConv2d(nn.BatchNorm2d(8), masked(**options))


LAYERS = {"masked": masked, "fused": fused}


def images():
    return torch.randn(SHAPE).to(memory_format=LAST)


def gradients(layer, x, loss):
    x = x.requires_grad_() if x.is_leaf else x
    conv = getattr(layer, "conv", layer)
    filters = conv.learned if isinstance(conv, maskedconv.MaskedConv2d) else conv.weight
    grads = torch.autograd.grad(loss(layer(x)), (x, filters, *bn_of(layer)))
    return [grads[0], grads[1][:4], *grads[2:]]


def bn_of(layer):
    return [] if getattr(layer, "bn", None) is None else [layer.bn.weight, layer.bn.bias]


def conjugated(out):
    torch.manual_seed(1)
    weight = torch.randn(out.shape, dtype=torch.complex128).to(memory_format=LAST)
    real = torch.ones(out.shape, dtype=out.dtype).to(memory_format=LAST)
    complex_type = torch.complex(real, real).dtype
    return (torch.complex(real, out).conj() * weight.to(complex_type)).real.sum()


def imaginary(out):
    torch.manual_seed(1)
    weight = torch.randn(out.shape, dtype=torch.float64).to(out.dtype)
    return (torch.complex(out, 2 * out).conj().imag * weight).sum()


LOSSES = {
    "conjugated": conjugated,
    "imaginary": imaginary,
    "zeros": lambda out: out.sgn().sum(),
    "zeros_in_part": lambda out: out.sgn().sum() + out[:, :2].square().sum(),
    "expanded": lambda out: out.sum(),
    "expanded_rows": lambda out: out.sum(2).square().sum(),
    "transposed": lambda out: (out.transpose(2, 3) ** 2).sum(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("slice_dim", [0, 1])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_gradients_that_arrive_lazily(make, slice_dim, loss):
    layer = make(slice_dim=slice_dim)
    other, x = Plain(layer), images()
    ours, theirs = gradients(layer, x, loss), gradients(other, x.double(), loss)
    if slice_dim == 1:
        conv = other.conv.weight
        theirs[1] = torch.autograd.grad(loss(Plain.forward(other, x.double())), conv)[0][:, :4]
        ours[1] = torch.autograd.grad(
            loss(layer(x)), (layer.conv if make is fused else layer).learned
        )[0]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, **CLOSE)


def lazily_negated(x):
    return torch.complex(x, -x).conj().imag


INPUTS = {
    "negated": lazily_negated,
    "zero": lambda x: torch._efficientzerotensor(x.shape),
    "expanded_batch": lambda x: x[:1].expand(SHAPE),
    "expanded_rows": lambda x: x[:, :, :1].expand(SHAPE),
    "expanded_channels": lambda x: x[:, :1].expand(SHAPE),
    "wide": lambda x: torch.cat((x, x), 1).to(memory_format=LAST)[:, :8],
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_inputs_that_are_not_dense_memory(make, kind, training):
    layer = make().train(training)
    with torch.no_grad():
        for part in bn_of(layer):
            part.normal_()
    other, x = Plain(layer).train(training), kind(images())
    weight = torch.randn(3, 16, 6, 5)
    out, expected = layer(x), other(x.double())
    torch.testing.assert_close(out.double(), expected, **CLOSE)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    conv = layer.conv if make is fused else layer
    torch.testing.assert_close(conv.learned.grad.double(), other.conv.weight.grad[:4], **CLOSE)
    for ours, theirs in zip(bn_of(layer), bn_of(other), strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, **CLOSE)


def test_lazily_negated_filters():
    learned, frozen = torch.randn(2, 4, 3, 3), torch.randn(3, 4, 3, 3)
    bank = pack_filters(lazily_negated(learned), lazily_negated(frozen), 0, torch.float32, LAST)
    assert torch.equal(bank, torch.cat((learned, frozen)))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_batch_of_gradients(make):
    """``is_grads_batched`` passes backward a wrapper for several tensors."""
    layer, x = make(), images()
    conv = layer.conv if make is fused else layer
    out = layer(x)
    grads = torch.randn(2, *out.shape)
    wanted = (conv.learned, *bn_of(layer))
    batched = torch.autograd.grad(out, wanted, grads, is_grads_batched=True, retain_graph=True)
    for i in range(2):
        alone = torch.autograd.grad(out, wanted, grads[i], retain_graph=True)
        torch.testing.assert_close([b[i] for b in batched], list(alone), **CLOSE)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_subclass_with_its_own_dispatch(make):
    layer, x = make(), images()
    conv = layer.conv if make is fused else layer
    layer(x).square().sum().backward()
    expected, conv.learned.grad = conv.learned.grad, None
    wrapped = copy.deepcopy(layer)
    own = wrapped.conv if make is fused else wrapped
    for name in ("learned", "bias_learned"):
        part = getattr(own, name).detach()
        setattr(own, name, nn.Parameter(TwoTensor(part, part.clone())))
    for name in ("frozen", "bias_frozen"):
        setattr(own, name, TwoTensor(getattr(own, name), getattr(own, name).clone()))
    if make is fused:
        for name in ("weight", "bias"):
            part = getattr(wrapped.bn, name).detach()
            setattr(wrapped.bn, name, nn.Parameter(TwoTensor(part, part.clone())))
    wrapped(TwoTensor(x, x.clone())).square().sum().backward()
    for part in (own.learned.grad.a, own.learned.grad.b):
        torch.testing.assert_close(part, expected, **CLOSE)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_fx_sees_every_step_of_a_traced_gradient(make):
    """A kernel's result would be a constant of the graph."""
    layer = make().eval()
    conv = layer.conv if make is fused else layer

    def grad(x):
        return torch.autograd.grad(layer(x).square().sum(), conv.learned)[0]

    graph, other = make_fx(grad)(images()), images()
    torch.testing.assert_close(graph(other), grad(other), **CLOSE)


def test_a_kernel_that_is_forced_says_why_it_cannot_read():
    layer, x = masked(backend="native"), images()
    if reason := BACKENDS["native"].cannot_run(
        maskedconv.ops.WeightGradProblem(x, x, torch.Size((4, 8, 1, 1)), 0, layer._geometry)
    ):
        pytest.skip(reason)
    out = layer(x)
    with pytest.raises(RuntimeError, match="'native', which cannot run: a kernel reads bare"):
        torch.autograd.grad(out, layer.learned, torch.ones(2, *out.shape), is_grads_batched=True)


@pytest.mark.parametrize(
    "tensor",
    [lazily_negated(torch.ones(3)), torch._efficientzerotensor((3,)),
     torch._efficientzerotensor((3,))[1:], torch.ones(3, device="meta"),
     torch.ones(3).to_sparse(), torch.ones(3).to_mkldnn()],
    ids=["negated", "zero", "part of zero", "meta", "sparse", "mkldnn"],
)  # fmt: skip
def test_no_address_without_values_in_memory(tensor):
    assert not plain.is_plain(tensor)
    with pytest.raises(RuntimeError):
        plain.address(tensor)


def test_conjugated_filters_are_resolved():
    learned, frozen = torch.randn(2, 2, 4, 3, 3, dtype=torch.complex64)
    problem = PackProblem(learned, frozen, 0, torch.complex64, LAST)
    assert all(
        backend.cannot_run(problem) for name, backend in PACKS.items() if name != "reference"
    )
    bank = pack_filters(learned.conj(), frozen.conj(), 0, torch.complex64, LAST)
    assert torch.equal(bank.resolve_conj(), torch.cat((learned, frozen)).conj())


def test_a_plain_tensor_is_not_copied():
    for tensor in (torch.ones(3), torch.ones(2, 3).t(), torch.ones(1).expand(3), torch.ones(0)):
        assert plain.is_plain(tensor)
        assert plain.resolved(tensor) is tensor
        assert plain.address(tensor) == tensor.data_ptr()
