"""Measures the costs of training a model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from maskedconv.analysis.costs import Costs, LayerCosts, Summary
from maskedconv.analysis.measuring import (
    Arguments,
    arguments_of,
    kept_by_module,
    run_step,
)
from maskedconv.analysis.operations import operations_by_module
from maskedconv.checkpoint.saving import file_bytes
from maskedconv.conversion.convert import merge_
from maskedconv.fusion.attached import detach
from maskedconv.nn.as_before import randomness_restored
from maskedconv.nn.partly_learned import PartlyLearned

MakeOptimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


def summary(
    model: nn.Module, input: Any, *, optimizer: MakeOptimizer = torch.optim.AdamW
) -> Summary:
    """Measures what one step of training costs, against training all of the merged model.

    Copies of the model run, in the mode (training or evaluation) that it is in; ``model``, its
    gradients and torch's generators stay as they are. Layers of every method count alike.

    Args:
        model: on one device.
        input: what the model is called with, such as ``[N, C, H, W]``, or a tuple of arguments.
        optimizer: makes an optimizer from parameters; its state is measured after one step.

    Raises:
        TypeError: ``input`` holds no tensor; or no tensor is found in the output, as in that of a
            class that PyTorch's pytree does not know, or none has a gradient though the model
            learns.
        ValueError: a layer cannot be merged (:func:`maskedconv.merge_`), or the model has nothing
            to save.
    """
    arguments = arguments_of(input)
    with randomness_restored(model, *(t for t in tree_leaves(arguments) if isinstance(t, Tensor))):
        whole = merge_(copy.deepcopy(model)).requires_grad_(True)
        detach(whole)
        full = _costs(whole, arguments, optimizer)
        found = _costs(copy.deepcopy(model), arguments, optimizer)
    layers = [
        LayerCosts(name, type(module).__name__, found[name], full[name].operations)
        for name, module in model.named_modules()
    ]
    used = tuple(one for one in layers if any(one.costs))
    return Summary(used, _total(found, model), _total(full, whole))


def _costs(model: nn.Module, arguments: Arguments, optimizer: MakeOptimizer) -> dict[str, Costs]:
    """The own costs of each module; takes a step of ``model``."""
    operations = operations_by_module(copy.deepcopy(model), arguments)
    model.zero_grad(set_to_none=True)
    kept = kept_by_module(model, arguments)
    run_step(model, arguments)
    state = _optimizer_state(model, optimizer)
    counted: set[int] = set()
    return {
        name: _own_costs(module, state, counted)._replace(
            activations=kept.activations[name],
            packed=kept.packed[name],
            operations=operations[name],
        )
        for name, module in model.named_modules()
    }


def _total(found: Mapping[str, Costs], model: nn.Module) -> Costs:
    total = Costs(*map(sum, zip(*found.values(), strict=True)))
    return total._replace(checkpoint=file_bytes(model))


def _own_costs(module: nn.Module, state: dict[int, int], counted: set[int]) -> Costs:
    """Costs of a module's own tensors; each counts once, for the first module that has it."""
    own = list(_uncounted(module.parameters(recurse=False), counted))
    learned = [p for p in own if p.requires_grad]
    frozen = sum(p.numel() for p in own if not p.requires_grad)
    left_out: set[str] = set()
    if isinstance(module, PartlyLearned):
        left_out = set(module.frozen_buffers())
        for tensor, size in module.frozen_parts():
            if tensor is None or id(tensor) not in counted:
                frozen += size
            if tensor is not None:
                counted.add(id(tensor))
    omitted = {*left_out, *module._non_persistent_buffers_set}
    buffers = [b for name, b in module.named_buffers(recurse=False) if name not in omitted]
    return Costs(
        learned=sum(p.numel() for p in learned),
        frozen=frozen,
        gradients=sum(p.grad.nbytes for p in learned if p.grad is not None),
        optimizer=sum(state.get(id(p), 0) for p in learned),
        checkpoint=sum(t.nbytes for t in (*own, *buffers)),
        all_reduce=sum(p.nbytes for p in learned),
    )


def _uncounted(tensors: Iterable[Tensor], counted: set[int]) -> Iterable[Tensor]:
    for tensor in tensors:
        if id(tensor) not in counted:
            counted.add(id(tensor))
            yield tensor


def _optimizer_state(model: nn.Module, make: MakeOptimizer) -> dict[int, int]:
    """Bytes of the optimizer's state after one step, by the ``id`` of the parameter."""
    learned = [p for p in model.parameters() if p.requires_grad]
    if not learned:
        return {}
    optimizer = make(learned)
    optimizer.step()
    return {
        id(parameter): sum(t.nbytes for t in state.values() if isinstance(t, Tensor))
        for parameter, state in optimizer.state.items()
    }
