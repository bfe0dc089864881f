"""PyTorch's own gradients of a convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.geometry import ConvGeometry, dense, memory_format_of

# The overload itself, which saves its lookup at every call.
_convolution_backward = torch.ops.aten.convolution_backward.default


def convolution_grads(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    geometry: ConvGeometry,
    needs: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """The gradients of ``input`` and ``weight``, or None if ``needs`` excludes one.

    The values of ``input`` affect only the gradient of ``weight``, and vice versa. The other
    gradient uses only shape, dtype and memory format.
    """
    if needs[1] and input.is_cpu and _skips_pixels(weight, geometry):
        grad_weight = _grad_of_pixels_read(grad_output, input, weight, geometry)
        needs = (needs[0], False)
        grad_input, _ = convolution_grads(grad_output, input, weight, geometry, needs)
        return grad_input, grad_weight
    grad_input, grad_weight, _ = _convolution_backward(
        _usual_strides(grad_output), _usual_strides(input), weight, None, geometry.stride,
        geometry.padding, geometry.dilation, False, (0, 0), geometry.groups, (*needs, False),
    )  # fmt: skip
    return grad_input, grad_weight


def _usual_strides(tensor: Tensor) -> Tensor:
    """``[N, C, H, W]`` with the strides of a new tensor in dimensions of size 1.

    PyTorch's float64 kernels for groups read the stride of a batch of 1 (torch 2.11).
    """
    if 1 not in tensor.shape or not tensor.is_contiguous(memory_format=memory_format_of(tensor)):
        return tensor
    return dense(tensor)


def _skips_pixels(weight: Tensor, geometry: ConvGeometry) -> bool:
    """Whether this is a strided 1x1 convolution without padding."""
    pointwise = weight.size(2) == weight.size(3) == 1
    return pointwise and geometry.stride != (1, 1) and geometry.padding == (0, 0)


def _grad_of_pixels_read(
    grad_output: Tensor, input: Tensor, weight: Tensor, geometry: ConvGeometry
) -> Tensor:
    """The weight gradient of a strided 1x1 convolution, computed from a view of the read pixels.

    With the stride, oneDNN writes out of bounds for fewer than 8 channels in channels_last on
    processors with AVX2 (seen in torch 2.11, also with a plain nn.Conv2d).
    """
    rows, columns = geometry.stride
    pixels = input[:, :, ::rows, ::columns].contiguous(memory_format=memory_format_of(input))
    unit = geometry._replace(stride=(1, 1))
    return convolution_grads(grad_output, pixels, weight, unit, (False, True))[1]
