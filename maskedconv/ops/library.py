"""PyTorch's own gradients of a convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.geometry import ConvGeometry

# The one overload, so that PyTorch need not look for it at every call.
_convolution_backward = torch.ops.aten.convolution_backward.default


def convolution_grads(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    geometry: ConvGeometry,
    needs: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """The gradients of ``input`` and ``weight``; what ``needs`` does not ask for is None.

    Of what is not asked for the values do not matter, only shape, type and memory format.
    """
    grad_input, grad_weight, _ = _convolution_backward(
        grad_output, input, weight, None, geometry.stride, geometry.padding, geometry.dilation,
        False, (0, 0), geometry.groups, (*needs, False),
    )  # fmt: skip
    return grad_input, grad_weight
