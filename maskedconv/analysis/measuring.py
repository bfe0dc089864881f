"""Runs training steps of a model's copy and measures them."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from maskedconv.ops.dispatch import VARIABLE

Arguments = tuple[Any, ...]


def arguments_of(input: Any) -> Arguments:
    """The positional arguments that ``input`` stands for; TypeError if it holds no tensor."""
    arguments = input if isinstance(input, tuple) else (input,)
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(arguments)):
        raise TypeError(
            f"input is {type(input).__name__}; expected a Tensor, or a tuple of the arguments of "
            "the model with at least one"
        )
    return arguments


@contextmanager
def kept_randomness() -> Iterator[None]:
    """Restores torch's generators at the end, on the CPU and on the present CUDA device."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield


def scalar(output: Any) -> Tensor | None:
    """The sum of all outputs that have a gradient; None if none has."""
    leaves = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
    return sum((leaf.sum() for leaf in leaves[1:]), leaves[0].sum()) if leaves else None


def run_step(model: nn.Module, arguments: Arguments) -> None:
    """One forward and backward pass; the gradients stay in the parameters."""
    with torch.enable_grad():
        total = scalar(model(*arguments))
        if total is not None:
            total.backward()


def kept_by_module(model: nn.Module, arguments: Arguments) -> Counter[str]:
    """Bytes that autograd keeps for backward, by the innermost module that is being called.

    One forward pass. Unique storages without those of parameters and buffers. A storage counts
    for the module that keeps it first.
    """
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, tuple[str, Tensor]] = {}
    running = [""]

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            # The tensor is held, so that no other storage gets its address.
            kept.setdefault(address, (running[-1], tensor))
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with _tracked(model, running), torch.enable_grad(), hooks:
        model(*arguments)
    total: Counter[str] = Counter()
    for name, tensor in kept.values():
        total[name] += tensor.untyped_storage().nbytes()
    return total


@contextmanager
def _tracked(model: nn.Module, running: list[str]) -> Iterator[None]:
    """Keeps the names of the modules that are being called in ``running``, innermost last."""
    handles = []
    for name, module in model.named_modules():

        def enter(_: nn.Module, __: Any, name: str = name) -> None:
            running.append(name)

        def leave(_: nn.Module, __: Any, ___: Any) -> None:
            running.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def count_operations(model: nn.Module, arguments: Arguments) -> int:
    """Floating-point operations of a forward and backward pass: convolutions and matrix products.

    Multiplications and additions count separately. PyTorch counts its own operators only, so the
    reference backend runs.
    """
    model = copy.deepcopy(model)
    counter = FlopCounterMode(display=False)
    with mock.patch.dict(os.environ, {VARIABLE: "reference"}), counter:
        run_step(model, arguments)
    return counter.get_total_flops()
