"""Stand-ins for CUDA graphs on the CPU: recorders of ``training.captured_step``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskedconv.cli import options
from maskedconv.runs import execute
from maskedconv.training import loop, step


class Rerun:
    """Records the function itself: a replay runs it. Counts what is asked of it.

    Attributes:
        waits: the answer of ``warm_up``.
    """

    waits = ""

    def __init__(self, device: torch.device) -> None:
        self.warm_ups = self.records = self.replays = 0
        made.append(self)

    def warm_up(self, function: Callable[[], None]) -> str:
        self.warm_ups += 1
        function()
        return self.waits

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        self.records += 1
        return self._counting(self._replay_of(function))

    def _replay_of(self, function: Callable[[], None]) -> Callable[[], None]:
        return function

    def _counting(self, replay: Callable[[], None]) -> Callable[[], None]:
        def counted() -> None:
            self.replays += 1
            replay()

        return counted


class Tape(Rerun):
    """Records PyTorch's operators with their memory and host values, as a CUDA graph does.

    Recording executes nothing: afterwards all memory and the random generator are as before. A
    replay executes the same operators on the same memory, with the same host values. It knows
    nothing of Python, and nothing of kernels that PyTorch does not dispatch.
    """

    def _replay_of(self, function: Callable[[], None]) -> Callable[[], None]:
        random, calls = torch.get_rng_state(), _Calls()
        with calls:
            function()
        calls.undo()
        torch.set_rng_state(random)
        return calls.replay


class _Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        # The memory from outside of the recording, and its content before.
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._own: set[int] = set()

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in given:
            memory = tensor.untyped_storage()
            if memory.data_ptr() not in self._own | self._before.keys():
                self._before[memory.data_ptr()] = _bytes(tensor), _bytes(tensor).clone()
        result = operator(*args, **kwargs)
        self._calls.append((operator, args, kwargs, result))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _address(leaf) not in self._before:
                self._own.add(_address(leaf))
        return result

    def undo(self) -> None:
        for now, before in self._before.values():
            now.copy_(before)

    def replay(self) -> None:
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            for operator, args, kwargs, result in self._calls:
                again = operator(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and _address(old) != _address(new):
                        old.copy_(new)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> Tensor:
    """All memory behind a tensor."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.detach().untyped_storage())


# Every recorder since ``take_the_place``, in order.
made: list[Rerun] = []


def take_the_place(monkeypatch: pytest.MonkeyPatch, recorder: type[Rerun]) -> None:
    """Has ``recorder`` take the place of CUDA graphs, on every device and for every optimizer."""
    made.clear()
    monkeypatch.setattr(step, "CudaGraphs", recorder)
    for module in (execute, loop, step, options):
        monkeypatch.setattr(module, "check_graph", lambda *arguments: [])
