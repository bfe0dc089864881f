"""The processes that train one network together. One process is the usual case.

Each of them holds the network, computes its share of every batch (``data.share``), and makes the
same step with the mean of all gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskedconv.data.share import Share
from maskedconv.training.running_statistics import running_statistics

# In the messages of gloo and NCCL if the connection to another process is gone.
_LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe")


class LostProcess(ConnectionError):
    """Another process of the training ended too early."""


class Ranks(Protocol):
    """All processes of a training; each calls the same methods in the same order."""

    def parallel(self, model: nn.Module) -> nn.Module:
        """``model``; its gradients become the means over the processes in backward."""

    def any(self, wish: bool) -> bool:
        """Whether a process has the wish."""

    def of_first(self, value: Any) -> Any:
        """The value of the first process."""

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, for the first one; others get an empty list."""

    def sum(self, values: Tensor) -> Tensor:
        """The sum of the processes' ``values``, which it may overwrite."""

    def average_statistics_(self, model: nn.Module) -> None:
        """Averages the running statistics of norms that compute their own in training."""


class Alone:
    """One process."""

    def parallel(self, model: nn.Module) -> nn.Module:
        return model

    def any(self, wish: bool) -> bool:
        return wish

    def of_first(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def sum(self, values: Tensor) -> Tensor:
        return values

    def average_statistics_(self, model: nn.Module) -> None:
        pass


class Group:
    """The processes of PyTorch's default process group."""

    def parallel(self, model: nn.Module) -> nn.Module:
        # Statistics are averaged once an epoch instead of broadcast before every forward pass.
        with warnings.catch_warnings():
            # In PyTorch 2.14 nothing else yet leaves each process its statistics at the start.
            warnings.filterwarnings("ignore", ".*broadcast_buffers. is deprecated", FutureWarning)
            return DistributedDataParallel(
                model, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def any(self, wish: bool) -> bool:
        flag = torch.tensor(int(wish))
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def of_first(self, value: Any) -> Any:
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        first = dist.get_rank() == 0
        values: list[Any] = [None] * (dist.get_world_size() if first else 0)
        dist.gather_object(value, values if first else None)
        return values

    def sum(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values

    def average_statistics_(self, model: nn.Module) -> None:
        # A norm with fixed statistics is in eval mode, and may not change by a rounding.
        found = list(running_statistics(model, training=True).values())
        if not found:
            return
        own = torch.cat(found)
        first = own.clone()
        dist.broadcast(first, 0)
        # By differences, so that equal values keep all their bits: a training that is stopped
        # after this averages twice.
        means = first + self.sum(own - first) / dist.get_world_size()
        for value, mean in zip(found, means.split([len(value) for value in found]), strict=True):
            value.copy_(mean)


def ranks_of(share: Share) -> Ranks:
    """The processes that compute such shares.

    Raises:
        ValueError: the process group is none of as many processes.
    """
    if share.count == 1:
        return Alone()
    count = dist.get_world_size() if dist.is_initialized() else 1
    if count != share.count:
        raise ValueError(
            f"dataset is a share of {share.count}; expected a process group of {share.count}, not "
            f"{count}"
        )
    return Group()


@contextmanager
def lost_processes_named() -> Iterator[None]:
    """Context that turns the errors of a broken connection into LostProcess."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(word in str(error) for word in _LOST):
            raise LostProcess("another process of this training ended") from error
        raise
