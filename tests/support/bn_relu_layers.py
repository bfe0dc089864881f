"""Layers of BatchNorm, ReLU and a convolution, and their comparison with the three modules."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from maskedconv.nn import BNReLUConv2d, MaskedConv2d

GEOMETRIES = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "1x1": {"kernel_size": 1},
    "stride2": {"kernel_size": 3, "stride": 2, "padding": 1},
    "stride4_k11": {"kernel_size": 11, "stride": 4, "padding": 5},
    "rect": {"kernel_size": (3, 5), "padding": (0, 2), "stride": (2, 1)},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "same": {"kernel_size": 3, "padding": "same"},
    "same_even": {"kernel_size": (4, 2), "padding": "same"},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "groups": {"kernel_size": 3, "padding": 1, "groups": 2},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "no_bias": {"kernel_size": 3, "padding": 1, "bias": False},
}
NORMS = {
    "usual": {},
    "cumulative": {"momentum": None},
    "momentum": {"momentum": 0.3, "eps": 0.1},
    "no_affine": {"affine": False},
    "no_running": {"track_running_stats": False},
}
MODES = [(dim, frozen) for dim in range(4) for frozen in ("random", "zero")]
FORMATS = [torch.contiguous_format, torch.channels_last]


def norm_of(channels=6, dtype=torch.float64, **options):
    bn = nn.BatchNorm2d(channels, **options).to(dtype)
    with torch.no_grad():
        for parameter in bn.parameters():
            parameter.copy_(torch.randn(channels))
        if bn.running_mean is not None:
            bn.running_mean.copy_(torch.randn(channels))
            bn.running_var.copy_(torch.rand(channels) + 0.5)
    return bn


def layer_of(learned=0.4, slice_dim=0, frozen="random", dtype=torch.float64, norm=None, **geometry):
    conv = MaskedConv2d(
        6, 12, **(geometry or GEOMETRIES["3x3"]), learned=learned, slice_dim=slice_dim,
        frozen=frozen, dtype=dtype,
    )  # fmt: skip
    return BNReLUConv2d(norm_of(dtype=dtype, **(norm or {})), conv)


def three_modules(layer, x):
    return layer.conv(F.relu(layer.bn(x)))


def images(*shape, dtype=torch.float64, memory_format=torch.contiguous_format):
    return torch.randn(shape, dtype=dtype).mul(2).add(0.3).to(memory_format=memory_format)


def compare(layer, x, rtol=1e-10, atol=1e-10, steps=2):
    """Outputs, gradients and running statistics of ``layer`` and of its three modules."""
    plain = copy.deepcopy(layer)
    for _ in range(steps):
        layer.zero_grad()
        plain.zero_grad()
        x, plain_x = x.detach().requires_grad_(), x.detach().requires_grad_()
        out, expected = layer(x), three_modules(plain, plain_x)
        torch.testing.assert_close(out, expected, rtol=rtol, atol=atol)
        grad = torch.randn(expected.shape).to(expected.dtype)
        out.backward(grad)
        expected.backward(grad)
        torch.testing.assert_close(x.grad, plain_x.grad, rtol=rtol, atol=atol)
        for (name, ours), theirs in zip(layer.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(
                ours.grad, theirs.grad, rtol=rtol, atol=atol, check_stride=False,
                msg=lambda text, name=name: f"{name}: {text}",
            )  # fmt: skip
        x = x + 1
    for (name, ours), theirs in zip(layer.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol, msg=lambda _, n=name: n)
