"""Implementations in plain PyTorch that learn only the first n filters of a convolution.

Every peer is a module with the same filters, stride and padding, created from a plain convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv import MaskedConv2d


class _SplitFilters(nn.Module):
    """Learned filters as a parameter, the others as a buffer."""

    def __init__(self, conv: nn.Conv2d, learned: int) -> None:
        super().__init__()
        weight = conv.weight.detach().clone()
        self.learned = nn.Parameter(weight[:learned].clone())
        self.register_buffer("frozen", weight[learned:].clone())
        self.stride, self.padding = conv.stride, conv.padding


class CatFilters(_SplitFilters):
    """The authors' method: concatenate the filters, then convolve; computes the full gradient."""

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat((self.learned, self.frozen))
        return F.conv2d(x, weight, None, self.stride, self.padding)


class GradientMask(nn.Module):
    """A hook zeroes the gradient of the frozen filters; weight decay still moves them."""

    def __init__(self, conv: nn.Conv2d, learned: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().clone())
        mask = conv.weight.new_zeros(conv.out_channels, 1, 1, 1)
        mask[:learned] = 1
        self.weight.register_hook(lambda grad: grad * mask)
        self.stride, self.padding = conv.stride, conv.padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, None, self.stride, self.padding)


class TwoConvolutions(_SplitFilters):
    """One learned and one frozen convolution; their outputs are concatenated."""

    def forward(self, x: Tensor) -> Tensor:
        learned = F.conv2d(x, self.learned, None, self.stride, self.padding)
        return torch.cat((learned, F.conv2d(x, self.frozen, None, self.stride, self.padding)), 1)


class _SlicedBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, learned: Tensor, frozen: Tensor, shape: Any) -> Tensor:
        weight = torch.cat((learned, frozen))
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        ctx.learned, ctx.shape = learned.size(0), shape
        return F.conv2d(x, weight, None, *shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.shape
        rest = (None, stride, padding, (1, 1), False, (0, 0), 1)
        backward = torch.ops.aten.convolution_backward
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = backward(grad, x, weight, *rest, (True, False, False))[0]
        rounded = min(weight.size(0), -(-ctx.learned // 8) * 8)
        grad_w = backward(grad[:, :rounded], x, weight[:rounded], *rest, (False, True, False))[1]
        return grad_x, grad_w[: ctx.learned], None, None


class SlicedBackward(_SplitFilters):
    """PyTorch's weight gradient on a slice of the output's gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return _SlicedBackward.apply(x, self.learned, self.frozen, (self.stride, self.padding))


class NarrowAndPad(_SplitFilters):
    """Zeroed filters: a convolution with the learned ones; its output is padded with zeros."""

    def forward(self, x: Tensor) -> Tensor:
        narrow = F.conv2d(x, self.learned, None, self.stride, self.padding)
        return F.pad(narrow, (0, 0, 0, 0, 0, self.frozen.size(0)))


def _conv2d(conv: nn.Conv2d, learned: int) -> nn.Module:
    return conv


def _masked(conv: nn.Conv2d, learned: int) -> nn.Module:
    return MaskedConv2d.from_conv2d(conv, learned=learned)


IMPLEMENTATIONS: dict[str, Callable[[nn.Conv2d, int], nn.Module]] = {
    "maskedconv": _masked,
    "conv2d": _conv2d,
    "cat": CatFilters,
    "gradient mask": GradientMask,
    "two convolutions": TwoConvolutions,
    "sliced backward": SlicedBackward,
}
# Peers for zeroed filters.
ZEROED: dict[str, Callable[[nn.Conv2d, int], nn.Module]] = {"narrow and pad": NarrowAndPad}
