"""Properties of a GPU, by which kernels choose their tiles, and types that a device computes in."""

from __future__ import annotations

import functools
from typing import Any

import torch

HALF_PRECISION = (torch.bfloat16, torch.float16)


@functools.cache
def properties_of(device: torch.device) -> Any:
    """PyTorch's properties of a CUDA device, asked for once."""
    return torch.cuda.get_device_properties(device)


def multiprocessors(device: torch.device) -> int:
    """How many a CUDA device has."""
    return int(properties_of(device).multi_processor_count)


def autocast_dtype(device: str) -> torch.dtype | None:
    """The type in which autocast computes on this type of device; None outside of autocast."""
    # The meta device has no autocast, and asking for it is an error.
    if device == "meta" or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)
