"""Kinds of problems. All problems of one kind run on the same backend."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes of the widest load; kernels take other paths for less aligned memory


def describe_cuda(*tensors: Tensor) -> Hashable:
    """Everything that the time of a kernel depends on, and PyTorch's settings that allow it."""
    cudnn: Any = torch.backends.cudnn
    settings = torch.are_deterministic_algorithms_enabled(), cudnn.conv.fp32_precision
    return settings, *map(_layout, tensors)


def _layout(tensor: Tensor) -> Hashable:
    alignment = tensor.data_ptr() % ALIGNMENT
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride(), alignment
