"""Decides whether Triton kernels can run, and on which device: a GPU, or a CPU when interpreted."""

from __future__ import annotations

import functools
import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

INTERPRETER_VARIABLE = "TRITON_INTERPRET"
MOST_BLOCKS = 65535  # of the second and third axis of a grid; the first has 2**31 - 1


@functools.cache
def installed() -> bool:
    """Whether the package ``triton`` is installed; does not import it."""
    return importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether Triton's own variable selects its interpreter, which takes CPU tensors."""
    return os.environ.get(INTERPRETER_VARIABLE, "0").lower() in ("1", "true", "on", "yes", "y")


def cannot_launch(device: torch.device) -> str:
    """The reason why kernels cannot run on tensors of ``device``, or an empty string."""
    if not installed():
        return "triton is not installed"
    if device.type == "cuda":
        return _unsupported_gpu(device)
    if device.type == "cpu" and interpreted():
        return ""
    return (
        f"its kernel is for cuda, or for the CPU under {INTERPRETER_VARIABLE}=1; "
        f"the tensors are on {device}"
    )


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Launches go to the device of ``tensor``."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


@functools.cache
def _unsupported_gpu(device: torch.device) -> str:
    if torch.version.hip is not None:
        return "its kernel is for NVIDIA GPUs"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"its kernel is for compute capability 8.0 or newer, not {capability}"
    return ""
