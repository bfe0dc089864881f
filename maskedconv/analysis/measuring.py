"""Runs training steps of a model's copy and measures them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.saved_storages import saved_storages

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


def run_step(model: nn.Module, arguments: Arguments) -> None:
    """One forward and backward pass; the gradients stay in the parameters.

    The loss is the sum of all outputs that have a gradient.

    Raises:
        TypeError: no tensor is found in the output, or none has a gradient though the model learns.
    """
    with torch.enable_grad():
        output = model(*arguments)
        leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        found = [leaf for leaf in leaves if leaf.requires_grad]
        if not leaves or (not found and any(p.requires_grad for p in model.parameters())):
            what = "none of its tensors has a gradient" if leaves else "no tensor is found in it"
            raise TypeError(
                f"the model's output is {type(output).__name__}, and {what}; expected a Tensor "
                "that depends on what is learned, or a list, tuple, dict or registered pytree "
                "node with one"
            )
        if found:
            sum((leaf.sum() for leaf in found[1:]), found[0].sum()).backward()


class SavedBytes(NamedTuple):
    """Bytes that autograd keeps for backward, by the innermost module that is being called.

    Attributes:
        activations: without weights.
        packed: weights that layers assembled for the pass.
    """

    activations: Counter[str]
    packed: Counter[str]


def kept_by_module(model: nn.Module, arguments: Arguments) -> SavedBytes:
    """Measures one forward pass: unique storages without those of parameters and buffers.

    A storage counts for the module that keeps it first.
    """
    kept: list[tuple[str, Tensor]] = []
    running = [""]
    own = (*model.parameters(), *model.buffers())
    saved = saved_storages(own, lambda tensor: kept.append((running[-1], tensor)))
    with _called(model, running), torch.enable_grad(), saved:
        model(*arguments)
    weights = _assembled_weights(model)
    found = SavedBytes(Counter(), Counter())
    for name, tensor in kept:
        same = any(_is_same(tensor, weight) for weight in weights.get(tensor.shape, ()))
        (found.packed if same else found.activations)[name] += tensor.untyped_storage().nbytes()
    return found


@torch.no_grad()
def _assembled_weights(model: nn.Module) -> dict[torch.Size, list[Tensor]]:
    weights: dict[torch.Size, list[Tensor]] = {}
    for layer in model.modules():
        if isinstance(layer, PartlyLearned):
            weight = layer.to_plain().weight
            assert isinstance(weight, Tensor)
            weights.setdefault(weight.shape, []).append(weight)
    return weights


def _is_same(tensor: Tensor, weight: Tensor) -> bool:
    return tensor.is_floating_point() and torch.equal(tensor, weight.to(tensor))


@contextmanager
def _called(model: nn.Module, running: list[str]) -> Iterator[None]:
    """Keeps the names of the modules that are being called in ``running``, innermost last.

    Without hooks, because with them layers would run one by one that else are one step.
    """
    names = {id(module): name for name, module in model.named_modules()}
    call = nn.Module.__call__

    def named_call(module: nn.Module, *arguments: Any, **options: Any) -> Any:
        running.append(names.get(id(module), running[-1]))
        try:
            return call(module, *arguments, **options)
        finally:
            running.pop()

    with mock.patch.object(nn.Module, "__call__", named_call):
        yield
