"""Sizes of 0 and 1, and kernels larger than the image, behave as in plain modules."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from free_memory import fill_free_memory
from torch import nn
from torch.nn import functional as F

import maskedconv
from maskedconv.nn import BNReLUConv2d
from maskedconv.ops import triton_runtime
from maskedconv.ops.geometry import dense, geometry_of
from maskedconv.ops.weight_grad import BACKENDS, WeightGradProblem

FORMATS = [torch.contiguous_format, torch.channels_last]
MODES = [(dim, frozen) for dim in range(4) for frozen in ("random", "zero")]


def layer_of(slice_dim, frozen, dtype=torch.float32, fused=False, channels=4, learned=2, **options):
    arguments = {"kernel_size": 3, "padding": 1, **options}
    conv = maskedconv.MaskedConv2d(
        channels, 8, learned=learned, slice_dim=slice_dim, frozen=frozen, seed=0, dtype=dtype,
        **arguments,
    )  # fmt: skip
    return BNReLUConv2d(nn.BatchNorm2d(channels, dtype=dtype), conv) if fused else conv


def plain_of(layer):
    """PyTorch's modules in float64, and their parameters in the order of the layer's."""
    if not isinstance(layer, BNReLUConv2d):
        conv = layer.to_conv2d().double()
        return conv, [conv.weight, conv.bias]
    bn, conv = copy.deepcopy(layer.bn).double(), layer.conv.to_conv2d().double()
    modules = nn.Sequential(bn, nn.ReLU(), conv)
    return modules, [bn.weight, bn.bias, conv.weight, conv.bias]


def compare(layer, x, grad_of=torch.randn_like):
    """Output and gradients against PyTorch's own modules in float64."""
    layer.zero_grad()
    other, theirs = plain_of(layer)
    conv = layer.conv if isinstance(layer, BNReLUConv2d) else layer
    a, b = x.detach().requires_grad_(), x.detach().double().requires_grad_()
    out, expected = layer(a), other(b)
    grad = grad_of(expected)
    out.backward(grad.to(out.dtype))
    expected.backward(grad)
    close = {"rtol": 1e-4, "atol": 1e-4} if x.dtype == torch.float32 else {}
    torch.testing.assert_close(out.double(), expected, **close)
    torch.testing.assert_close(a.grad.double(), b.grad, **close)
    for ours, parameter in zip(layer.parameters(), theirs, strict=True):
        whole = parameter.grad
        if whole.dim() == 4:
            whole = whole.narrow(conv.slice_dim, 0, conv.num_learned)
        elif ours is conv.bias_learned:
            whole = whole[: len(ours)]
        torch.testing.assert_close(ours.grad.double(), whole, check_stride=False, **close)


EMPTY = list(itertools.product([False, True], [False, True], FORMATS, [1, 2]))


@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_empty_batches(slice_dim, frozen):
    for fused, bias, memory_format, groups in EMPTY:
        for training in (True, False):
            layer = layer_of(slice_dim, frozen, fused=fused, groups=groups, bias=bias)
            layer.train(training)
            x = torch.randn(0, 4, 9, 9).to(memory_format=memory_format).requires_grad_()
            other, buffers = plain_of(layer)[0], _buffers_after(layer, x)
            out = layer(x)
            out.sum().backward()
            assert out.shape == (0, 8, 9, 9)
            assert x.grad.shape == x.shape
            for parameter in layer.parameters():
                assert torch.equal(parameter.grad, torch.zeros_like(parameter))
            other(x.detach().double()).sum().backward()
            assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in other.parameters())
            for ours, expected in zip(layer.buffers(), buffers, strict=True):
                assert torch.equal(ours, expected)


def _buffers_after(layer, x):
    """What a pass of the separate modules makes of the buffers: only BatchNorm's change."""
    copied = copy.deepcopy(layer)
    if isinstance(copied, BNReLUConv2d):
        copied.bn(x.detach())
    return list(copied.buffers())


# Layouts of [N, C, H, W] with unusual strides in dimensions of size 1.
VIEWS = {
    "nchw": lambda n, c, h, w: torch.randn(n, c, h, w),
    "nhwc": lambda n, c, h, w: torch.randn(n, h, w, c).permute(0, 3, 1, 2),
    "nlc": lambda n, c, h, w: torch.randn(n, h * w, c).transpose(1, 2).unflatten(2, (h, w)),
    "nwhc": lambda n, c, h, w: torch.randn(n, w, h, c).permute(0, 3, 2, 1),
    "ncwh": lambda n, c, h, w: torch.randn(n, c, w, h).transpose(2, 3),
    "cnhw": lambda n, c, h, w: torch.randn(c, n, h, w).transpose(0, 1),
    "prefix": lambda n, c, h, w: torch.randn(n, h, w, c + 3).permute(0, 3, 1, 2)[:, :c],
    "expanded": lambda n, c, h, w: torch.randn(n, c, 1, w).expand(n, c, h, w),
}
SIZES = [(3, 5, 7, 1), (3, 5, 1, 7), (3, 1, 4, 5), (1, 5, 4, 3), (2, 5, 1, 1), (1, 1, 3, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_dimensions_of_one(size, view, dtype):
    for kernel, fused, training in (
        (1, True, True), (1, True, False), ((3, 1), True, True), ((1, 3), False, True),
    ):  # fmt: skip
        pads = (0, 0) if kernel == 1 else (kernel[0] // 2, kernel[1] // 2)
        layer = layer_of(
            0, "random", dtype, fused, size[1], kernel_size=kernel, padding=pads
        ).train(training)
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        x = VIEWS[view](*size).to(dtype)
        compare(layer, x)
        compare(layer, x, lambda out: torch.ones(1, 1, 1, 1).double().expand(out.shape))
        compare(layer, x, lambda out: torch.randn_like(out).to(memory_format=torch.channels_last))


def test_a_view_of_sequences_in_the_reference():
    """PyTorch's own BatchNorm backward misreads the gradient of such a view."""
    layer = layer_of(0, "random", torch.float64, True, 6, kernel_size=1, padding=0)
    for training in (True, False):
        compare(layer.train(training), torch.randn(4, 9, 6).double().transpose(1, 2).unsqueeze(-1))


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(1, 2, 3, 1), (2, 1, 1, 3), (2, 3, 1, 1), (1, 1, 1, 1)])
def test_dense_tensors_have_the_strides_of_new_ones(shape, memory_format):
    odd = torch.randn(shape[0], shape[3], shape[2], shape[1]).permute(0, 3, 2, 1)
    made = dense(odd, memory_format)
    assert made.stride() == torch.empty(shape, memory_format=memory_format).stride()
    assert torch.equal(made, odd)


TOO_LARGE = {
    "rows": ((2, 9), {"kernel_size": (4, 3), "padding": 0}, r"\(2 x 9\). Kernel size: \(4 x 3\)"),
    "columns": ((9, 2), {"kernel_size": 4, "padding": 0}, r"\(9 x 2\). Kernel size: \(4 x 4\)"),
    "padded": ((2, 2), {"kernel_size": 5, "padding": 1}, r"\(4 x 4\). Kernel size: \(5 x 5\)"),
    "dilated": ((4, 4), {"dilation": 3}, r"\(6 x 6\). Kernel size: \(7 x 7\)"),
    "strided": ((2, 2), {"kernel_size": 4, "padding": 0, "stride": 3}, r"Kernel size: \(4 x 4\)"),
    "no_rows": ((0, 5), {"padding": 0}, r"\(0 x 5\). Kernel size: \(3 x 3\)"),
    "empty": ((0, 5), {"kernel_size": 1, "padding": 1}, "Only zero batch"),
}


@pytest.mark.parametrize("learned", [0, 1])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_kernel_larger_than_the_padded_image(case, slice_dim, frozen, fused, learned):
    size, options, message = TOO_LARGE[case]
    layer = layer_of(slice_dim, frozen, fused=fused, learned=learned, **options)
    x = torch.randn(2, 4, *size)
    with pytest.raises(RuntimeError, match=message):
        plain_of(layer)[0](x.double())
    with pytest.raises(RuntimeError, match=message):
        layer(x)
    if not fused and frozen == "zero":
        with pytest.raises(RuntimeError, match=message):
            maskedconv.masked_conv2d(
                x, layer.learned, None, stride=layer.stride, padding=layer.padding,
                dilation=layer.dilation, slice_dim=slice_dim, zeros=layer.num_zeros,
            )  # fmt: skip


SOME = {"batch": 2, "rows": 3, "filters": 2}
DTYPES = {"native": torch.float32, "triton": torch.float32, "cuda": torch.bfloat16}


@pytest.mark.parametrize("backend", DTYPES)
@pytest.mark.parametrize("none", SOME)
def test_no_kernel_says_that_it_can_run_where_there_is_nothing(backend, none, monkeypatch):
    """A backend accepts exactly the problems that its kernel accepts, also at the edges."""
    monkeypatch.setattr(triton_runtime, "cannot_launch", lambda device: "")
    batch, rows, filters = (size * (none != name) for name, size in SOME.items())
    x = torch.randn(batch, 4, rows, 5, dtype=DTYPES[backend])
    grad = torch.randn(batch, 6, rows, 5, dtype=DTYPES[backend])
    problem = WeightGradProblem(x, grad, torch.Size((filters, 4, 1, 1)), 0, geometry_of(1, 0, 1, 1))
    assert BACKENDS[backend].cannot_run(problem)
    gradient = BACKENDS["reference"].run(problem)
    assert torch.equal(gradient, torch.zeros(problem.shape, dtype=gradient.dtype))


def test_relu_of_nothing_keeps_statistics():
    bn = nn.BatchNorm2d(3)
    other = copy.deepcopy(bn)
    x = torch.randn(0, 3, 4, 4)
    assert torch.equal(maskedconv.nn.bn_relu(x, bn), F.relu(other(x)))
    for ours, theirs in zip(bn.buffers(), other.buffers(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("fused", [False, True], ids=["layer", "fused"])
@pytest.mark.parametrize(("slice_dim", "frozen"), MODES)
def test_the_stride_of_a_batch_of_one_says_nothing(slice_dim, frozen, fused):
    """PyTorch's float64 gradient for groups reads this stride."""
    layer = layer_of(slice_dim, frozen, torch.float64, fused, channels=6, groups=2, learned=1)
    x = torch.randn(1, 6, 5, 7, dtype=torch.float64).to(memory_format=torch.channels_last)
    compare(layer, x.as_strided(x.shape, (6, *x.stride()[1:])))


@pytest.mark.parametrize("fused", [False, True], ids=["layer", "fused"])
@pytest.mark.parametrize("learned", [1, 1.0])
def test_maps_narrower_than_the_stride(learned, fused):
    """oneDNN's gradient of bfloat16 filters reads uninitialised memory, whatever is learned."""
    options = {"kernel_size": 2, "stride": 3, "channels": 20, "learned": learned, "bias": False}
    layer = layer_of(0, "random", torch.bfloat16, fused, **options)
    x = torch.randn(1, 20, 6, 1).bfloat16().to(memory_format=torch.channels_last)
    (parameter,) = [p for name, p in layer.named_parameters() if name.endswith("learned")]
    for _ in range(20):
        layer.zero_grad()
        fill_free_memory()
        layer(x).sum().backward()
        assert parameter.grad.abs().max() < 100
