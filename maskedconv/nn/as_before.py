"""Contexts after which a model, and torch's random numbers, are as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def modes_restored(model: nn.Module) -> Iterator[None]:
    """Restores for each module whether it is in training mode.

    ``train()`` is called, as a layer may act there: LoRA's merge their weights for evaluation.
    """
    modes = [(module, module.training) for module in _outside_in(model)]
    try:
        yield
    finally:
        # A call reaches all that is inside, so that each module's own mode comes last.
        for module, mode in modes:
            module.train(mode)
        for module, mode in modes:
            module.training = mode


@contextmanager
def buffers_restored(model: nn.Module) -> Iterator[None]:
    """Restores the values of buffers that are changed in place, and buffers that are replaced.

    New ones stay, as what registers them may remember that it has done so.
    """
    entries = [(module, dict(module._buffers)) for module in model.modules()]
    values = [(one, one.detach().clone()) for one in model.buffers()]
    try:
        yield
    finally:
        for module, own in entries:
            module._buffers.update(own)
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Runs modules that were compiled in place, by ``module.compile()``, as they are written."""
    compiled = [one for one in model.modules() if one._compiled_call_impl is not None]
    calls = [module._compiled_call_impl for module in compiled]
    try:
        for module in compiled:
            module._compiled_call_impl = None
        yield
    finally:
        for module, call in zip(compiled, calls, strict=True):
            module._compiled_call_impl = call


def randomness_restored(model: nn.Module, *tensors: Tensor) -> AbstractContextManager[None]:
    """Restores torch's generators, on the CPU and on the GPUs of the model and ``tensors``."""
    devices = {one.device for one in [*model.parameters(), *model.buffers(), *tensors]}
    return torch.random.fork_rng([one for one in devices if one.type == "cuda"])


def _outside_in(model: nn.Module) -> list[nn.Module]:
    """All modules, each after those that hold it."""
    found: dict[nn.Module, None] = {}

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if child not in found:
                visit(child)
        found[module] = None

    visit(model)
    return list(found)[::-1]
