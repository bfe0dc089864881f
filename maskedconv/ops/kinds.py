"""Kinds of problems. All problems of one kind run on the same backend."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes of the widest load; kernels take other paths for less aligned memory


def describe_cuda(*tensors: Tensor) -> Hashable:
    """Everything that the time of a kernel depends on, and PyTorch's settings that allow it."""
    cudnn: Any = torch.backends.cudnn
    settings = torch.are_deterministic_algorithms_enabled(), cudnn.conv.fp32_precision
    return settings, *map(_layout, tensors)


def why_other_device(parts: Iterable[Tensor | None], input: Tensor) -> str:
    """The reason why a kernel for ``input`` cannot use its norm's ``parts``, or an empty string."""
    on_cpu = input.is_cpu  # faster to ask than to compare devices
    for part in parts:
        if part is not None and not (part.is_cpu if on_cpu else part.device == input.device):
            return f"the input is on {input.device}, a tensor of its norm on {part.device}"
    return ""


def _layout(tensor: Tensor) -> Hashable:
    alignment = tensor.data_ptr() % ALIGNMENT
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride(), alignment
