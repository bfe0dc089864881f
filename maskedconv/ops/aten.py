"""PyTorch's own gradients of a convolution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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
    if needs[1] and input.is_cpu and geometry.stride != (1, 1):
        read = _as_read(input, weight, geometry)
        if read is not None:
            grad_input, _ = convolution_grads(
                grad_output, input, weight, geometry, (needs[0], False)
            )
            _, grad_weight = convolution_grads(grad_output, read[0], weight, read[1], (False, True))
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


def _as_read(
    input: Tensor, weight: Tensor, geometry: ConvGeometry
) -> tuple[Tensor, ConvGeometry] | None:
    """The input and geometry of the same weight gradient in a form that oneDNN computes correctly.

    None if it computes this form correctly. Both faults were seen in torch 2.11, also with a plain
    nn.Conv2d.
    """
    if weight.size(2) == weight.size(3) == 1 and geometry.padding == (0, 0):
        # With a stride it writes out of bounds for fewer than 8 channels in channels_last (AVX2).
        rows, columns = geometry.stride
        pixels = input[:, :, ::rows, ::columns].contiguous(memory_format=memory_format_of(input))
        return pixels, geometry._replace(stride=(1, 1))
    narrow = input.size(3) < geometry.stride[1]
    if narrow and input.element_size() == 2 and geometry.padding != (0, 0):
        # In bfloat16 it reads uninitialised memory in the padding (AVX-512).
        rows, columns = geometry.padding
        padded = F.pad(input, (columns, columns, rows, rows))
        return padded, geometry._replace(padding=(0, 0))
    return None
