"""PyTorch's own gradients of a convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv.ops.geometry import ConvGeometry, dense, memory_format_of

# The overload itself, which saves its lookup at every call.
_convolution_backward = torch.ops.aten.convolution_backward.default

_BLOCK = 16  # channels in a block of oneDNN, at most


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
    if not needs[1] or not reads_wrongly(input, weight.shape[2:], geometry):
        return _grads(grad_output, input, weight, geometry, needs)
    read = _as_read(input, weight.shape[2:], geometry)
    _, grad_weight = _grads(grad_output, read[0], weight, read[1], (False, True))
    grad_input, _ = _grads(grad_output, input, weight, geometry, (needs[0], False))
    return grad_input, grad_weight


def _grads(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    geometry: ConvGeometry,
    needs: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
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


def reads_wrongly(input: Tensor, kernel: Sequence[int], geometry: ConvGeometry) -> bool:
    """Whether oneDNN's weight gradient may access memory that is not the input's.

    The faults were seen in torch 2.11, also with a plain nn.Conv2d. :func:`convolution_grads` gives
    it another form of the same convolution.
    """
    if not input.is_cpu or geometry.stride == (1, 1):
        return False
    if tuple(kernel) == (1, 1) and geometry.padding == (0, 0):
        # It writes out of bounds for fewer than 8 channels in channels_last (AVX2). No fault was
        # found where channels are complete blocks.
        return input.size(1) // geometry.groups % _BLOCK > 0
    # In bfloat16 it reads uninitialised memory right of the image (AVX-512).
    return input.element_size() == 2 and input.size(3) < geometry.stride[1]


def _as_read(
    input: Tensor, kernel: Sequence[int], geometry: ConvGeometry
) -> tuple[Tensor, ConvGeometry]:
    """Input and geometry of the same weight gradient, in a form that oneDNN computes correctly."""
    if tuple(kernel) == (1, 1) and geometry.padding == (0, 0):
        rows, columns = geometry.stride
        pixels = input[:, :, ::rows, ::columns].contiguous(memory_format=memory_format_of(input))
        return pixels, geometry._replace(stride=(1, 1))
    rows, columns = geometry.padding
    padded = F.pad(input, (columns, columns, rows, rows))
    unpadded = geometry._replace(padding=(0, 0))
    if padded.size(3) >= geometry.stride[1]:
        return padded, unpadded
    # There is one window in a row, so that its stride does not matter.
    width = (kernel[1] - 1) * geometry.dilation[1] + 1
    window = padded[..., :width].contiguous(memory_format=memory_format_of(input))
    return window, unpadded._replace(stride=(geometry.stride[0], 1))
