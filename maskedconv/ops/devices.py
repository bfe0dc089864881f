"""Properties of a GPU, by which kernels choose their tiles."""

from __future__ import annotations

import functools
from typing import Any

import torch


@functools.cache
def properties_of(device: torch.device) -> Any:
    """PyTorch's properties of a CUDA device, asked for once."""
    return torch.cuda.get_device_properties(device)
