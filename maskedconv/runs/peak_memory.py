"""The peak memory of a process, and of a run."""

from __future__ import annotations

import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from maskedconv.training.history import Epoch


def reset_peak(device: torch.device) -> None:
    """Makes :func:`peak` count from now on, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Linux can reset the peak resident size; on other systems it includes earlier runs.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> int:
    """Peak bytes: of tensors on CUDA, of the resident process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident()


def peak_resident() -> int:
    """Peak resident size of the process so far, in bytes."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forgetting_the_first_peak(
    on_epoch: Callable[[Epoch], None], device: torch.device, stored: int, epochs: int
) -> Callable[[Epoch], None]:
    """``on_epoch`` that also resets CUDA's memory peak after the first of several epochs that this
    process trains, because kernels are timed in it, which allocates extra memory.

    Args:
        stored: the number of epochs in the checkpoint, which ``on_epoch`` gets as well.
        epochs: the number of all epochs.
    """
    if device.type != "cuda":
        return on_epoch

    def chosen(epoch: Epoch) -> None:
        if epoch.epoch == stored + 1 < epochs:
            reset_peak(device)
        on_epoch(epoch)

    return chosen
