"""Counts the operations of a training step, layer by layer."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from maskedconv.analysis.measuring import Arguments, run_step
from maskedconv.ops.dispatch import VARIABLE

_MODULE = "maskedconv.module"


def operations_by_module(model: nn.Module, arguments: Arguments) -> Counter[str]:
    """Floating-point operations of a forward and backward pass: convolutions and matrix products.

    Multiplications and additions count separately, for the innermost module that is being called,
    or whose forward pass created the node of autograd that runs. PyTorch counts its own operators
    only, so the reference backend runs.
    """
    running = [""]
    counter = FlopCounterMode(display=False)
    attributed = _Attributed(counter, running)
    environment = mock.patch.dict(os.environ, {VARIABLE: "reference"})
    with environment, _tracked(model, running), counter, attributed:
        run_step(model, arguments)
    return attributed.found


class _Attributed(TorchDispatchMode):
    """Attributes the operations that a counter counts to modules."""

    def __init__(self, counter: FlopCounterMode, running: list[str]) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._counter, self._running = counter, running

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self._counter.get_total_flops()
        result = func(*args, **(kwargs or {}))
        if added := self._counter.get_total_flops() - before:
            node: Any = torch._C._current_autograd_node()
            name = self._running[-1] if node is None else node.metadata.get(_MODULE, "")
            self.found[name] += added
        return result


@contextmanager
def _tracked(model: nn.Module, running: list[str]) -> Iterator[None]:
    """Keeps the names of the modules that are being called in ``running``, innermost last.

    Nodes of autograd get the name of the module that creates them. With hooks every layer runs by
    itself.
    """
    handles = []
    for name, module in model.named_modules():

        def enter(_: nn.Module, inputs: Any, name: str = name) -> None:
            # Nodes that the calling module has created so far.
            _mark(inputs, running[-1])
            running.append(name)

        def leave(_: nn.Module, __: Any, output: Any) -> None:
            _mark(output, running.pop())

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mark(tensors: Any, name: str) -> None:
    """Marks all nodes behind the tensors that no module has marked."""
    found: list[Any] = [leaf.grad_fn for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor)]
    while found:
        node = found.pop()
        if node is not None and _MODULE not in node.metadata:
            node.metadata[_MODULE] = name
            found += [parent for parent, _ in node.next_functions]
