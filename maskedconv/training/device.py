"""The device to train on. Imports torch when a device is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskedconv.training.memory import keep_freed_memory

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


def open_device(device: str, threads: int | None) -> torch.device:
    """Returns the device to run on, and sets the number of CPU threads.

    Raises:
        ValueError: ``device`` is "cuda", but torch finds no GPU.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise ValueError("device is 'cuda', but torch finds no GPU; expected cpu or auto here")
    if device == "cuda" or (device == "auto" and found):
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")
