"""The device to train on. Imports torch when a device is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskedconv.training.memory import keep_freed_memory

if TYPE_CHECKING:
    import torch

    from maskedconv.training.torchrun import Processes

DEVICES = ("auto", "cpu", "cuda")


def open_device(
    device: str, threads: int | None, processes: Processes | None = None
) -> torch.device:
    """Returns the device to run on, and sets the number of CPU threads.

    Args:
        processes: several processes have a GPU each, by their numbers on their machine.

    Raises:
        ValueError: ``device`` is "cuda", but there is no GPU, or fewer than processes.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise ValueError("device is 'cuda', but torch finds no GPU; expected cpu or auto here")
    if device == "cuda" or (device == "auto" and found):
        if processes is not None and processes.count > 1:
            return _own_gpu(processes)
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


def _own_gpu(processes: Processes) -> torch.device:
    import torch

    gpus = torch.cuda.device_count()
    if processes.local_count > gpus:
        raise ValueError(
            f"torchrun started {processes.local_count} processes on a machine with {gpus} GPUs; "
            f"expected --nproc-per-node {gpus}, or --device cpu"
        )
    torch.cuda.set_device(processes.local_rank)
    return torch.device("cuda", processes.local_rank)
