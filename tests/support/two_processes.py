"""Runs a function in the processes of a gloo group; counts what they send."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def in_two_processes(work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Calls ``work(rank, *arguments)`` in each process; returns both results, by rank."""
    return in_processes(2, work, folder, *arguments)


def in_processes(count: int, work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """As :func:`in_two_processes`, in ``count`` processes."""
    torch.multiprocessing.spawn(_begin, args=(count, work, str(folder), arguments), nprocs=count)
    return [torch.load(folder / f"result{rank}", weights_only=False) for rank in range(count)]


def _begin(
    rank: int, count: int, work: Callable[..., Any], folder: str, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "store"), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    torch.save(work(rank, *arguments), os.path.join(folder, f"result{rank}"))
    dist.barrier()
    # PyTorch's teardown of a group may abort or hang if the other process is gone.
    os._exit(0)


class Traffic(TorchDispatchMode):
    """Counts the bytes of each collective of this process.

    Attributes:
        bytes: by the collective's name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            tensors = [t for t in tree_leaves(args[0]) if isinstance(t, torch.Tensor)]
            self.bytes[func._opname] += sum(t.nbytes for t in tensors)
        return func(*args, **(kwargs or {}))
