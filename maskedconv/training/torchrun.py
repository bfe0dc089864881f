"""The processes that torchrun started for one command. Imports torch only if there are several."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from maskedconv import console
from maskedconv.data.share import Share

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

_POLL_SECONDS = 0.05
# The longest wait for another process to print its error.
_TELL_SECONDS = 10.0
# Messages between the processes: keys of their store.
_BEGUN, _ENDED, _ERROR, _TOLD = "begun", "ended", "error", "told"


@dataclass(frozen=True)
class Processes:
    """All processes of a command, and this one's place among them.

    Messages go through a store, on which a process may wait for hours, as for another command that
    is doing the same run.

    Attributes:
        rank, count: number of this process, and of all.
        local_rank, local_count: the same on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    _store: Any = field(default=None, repr=False)

    @property
    def share(self) -> Share:
        """The share of a data set that this process computes."""
        return Share(self.rank, self.count)

    @property
    def store(self) -> Store:
        return self._store

    def in_turn(self, load: Callable[[], T]) -> T:
        """``load()``, first by one process of this machine, which may fill a cache for the others.

        If it raises, torchrun ends the others.
        """
        if self.count == 1:
            return load()
        key = f"loaded/{self.rank - self.local_rank}"
        if self.local_rank:
            self._wait_for(key)
        loaded = load()
        if not self.local_rank:
            self.store.set(key, "")
        return loaded

    def begin(self, run: str) -> None:
        """The first process begins the run of that key: the others follow."""
        if self.count > 1:
            self.store.set(_BEGUN, run)

    def follow(self, run: str) -> bool:
        """Whether the first process began the run; waits until it did, or ended without.

        Raises:
            ValueError: it began another run than this process has.
        """
        self._wait_for(_BEGUN, _ENDED)
        if not self.store.check([_BEGUN]):
            return False
        if (begun := self.store.get(_BEGUN).decode()) != run:
            raise ValueError(
                f"the run of process {self.rank} is {run}, and that of process 0 is {begun}; "
                "expected the same options and processors (--amp) everywhere"
            )
        return True

    def wait_for_first(self) -> None:
        """Waits until the first process has left :func:`joined`."""
        if self.rank:
            self._wait_for(_ENDED)

    def tell_error(self, text: str) -> None:
        """Prints ``text``, unless another process has printed an error, or the first has ended."""
        if self.count == 1:
            console.say(text)
            return
        if self.rank and self.store.check([_ENDED]):
            return
        mine = f"{self.rank} {text}"
        if self.store.compare_set(_ERROR, "", mine) == mine.encode():
            console.say(text, muted=False)
            self.store.set(_TOLD, "")
            return
        # The end of this process would end the other one.
        self._wait_for(_TOLD, seconds=_TELL_SECONDS)

    def _wait_for(self, *keys: str, seconds: float = float("inf")) -> None:
        """Waits until a key is there. Unlike ``Store.wait``, it can be interrupted."""
        end = time.monotonic() + seconds
        while not any(self.store.check([key]) for key in keys) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)


def started() -> Processes:
    """The processes of torchrun, without their store; one, if it was not torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        return Processes()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Processes(*(int(os.environ[name]) for name in names))


@contextmanager
def joined() -> Iterator[Processes]:
    """Context in which the processes are PyTorch's default process group.

    Processes other than the first are muted, and leave the context after the first one. If one
    leaves it by an error, torchrun ends all of them.
    """
    ours = started()
    if ours.count == 1:
        yield ours
        return
    import torch.distributed as dist

    ours = _join(ours)
    try:
        yield ours
    finally:
        if ours.rank == 0:
            ours.store.set(_ENDED, "")
    ours.wait_for_first()
    # Not after an error: it may wait for a process that is gone.
    dist.destroy_process_group()


def _join(ours: Processes) -> Processes:
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if ours.rank:
        console.mute()
    store, _, _ = next(rendezvous("env://"))
    both = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if both else "gloo",
        store=PrefixStore("group", store),
        rank=ours.rank,
        world_size=ours.count,
    )
    messages = PrefixStore("maskedconv", store)
    return Processes(ours.rank, ours.count, ours.local_rank, ours.local_count, messages)
