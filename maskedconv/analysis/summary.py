"""The costs of training a model: a table, and the data behind it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from maskedconv.analysis.measuring import (
    Arguments,
    arguments_of,
    count_operations,
    kept_by_module,
    kept_randomness,
    run_step,
)
from maskedconv.checkpoint import save
from maskedconv.conversion.convert import merge_
from maskedconv.nn.partly_learned import PartlyLearned

if TYPE_CHECKING:
    from rich.table import Table

MakeOptimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]

_TITLES = (
    "learned", "frozen", "gradients", "optimiser", "checkpoint", "activations", "all-reduce",
)  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """Scalars and bytes of one layer, or of a model.

    Attributes:
        learned: scalars that require a gradient.
        frozen: the other scalars of parameters; zeroed ones included.
        gradients: bytes of the gradients after one backward pass, measured.
        optimizer: bytes of the optimizer's state after one step, measured.
        checkpoint: bytes that :func:`maskedconv.save` stores; for a model the size of its file.
        activations: bytes kept for backward besides parameters and buffers, measured.
        all_reduce: bytes of gradients that data parallel training sums in a step.
    """

    learned: int
    frozen: int
    gradients: int
    optimizer: int
    checkpoint: int
    activations: int
    all_reduce: int

    @property
    def total(self) -> int:
        """All scalars of parameters."""
        return self.learned + self.frozen

    def values(self) -> tuple[int, ...]:
        """Its numbers, in the order of the attributes."""
        return tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class LayerCosts:
    """The costs of a module's own parameters, without those of the modules in it.

    Attributes:
        name: of the module in the model; empty for the model itself.
        kind: its class.
        costs: of it.
    """

    name: str
    kind: str
    costs: Costs


@dataclass(frozen=True)
class Summary:
    """What one step of training costs. ``str`` gives a table, and ``rich.print`` a coloured one.

    Attributes:
        layers: those with costs, in the model's order.
        total: of the model.
        full: of the merged model, all of which is learned, by the same measurements.
        operations: floating-point operations of a forward and backward pass, in convolutions and
            matrix products; a multiplication and an addition are two.
        full_operations: those of the merged model.
    """

    layers: tuple[LayerCosts, ...]
    total: Costs
    full: Costs
    operations: int
    full_operations: int

    @property
    def trainable(self) -> str:
        """The number of trainable parameters, in one line of peft's form."""
        share = 100 * self.total.learned / self.total.total if self.total.total else 0.0
        return (
            f"trainable params: {self.total.learned:,} || all params: {self.total.total:,} || "
            f"trainable%: {share:.4f}"
        )

    def rows(self) -> list[list[str]]:
        """The table's cells: a row for each layer, and three for the whole model."""
        rows = [
            [one.name or "(model)", one.kind, *map(_number, one.costs.values())]
            for one in self.layers
        ]
        rows.append(["total", "", *map(_number, self.total.values())])
        rows.append(["full training", "", *map(_number, self.full.values())])
        shares = zip(self.total.values(), self.full.values(), strict=True)
        rows.append(["share", "", *(_share(part, whole) for part, whole in shares)])
        return rows

    @property
    def operations_line(self) -> str:
        """The operations of a step against those of full training."""
        share = _share(self.operations, self.full_operations)
        return (
            f"operations of a step: {self.operations:,} || full training: "
            f"{self.full_operations:,} || share: {share}"
        )

    def __str__(self) -> str:
        rows = [["layer", "type", *_TITLES], *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if index < 2 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, self.operations_line, self.trainable])

    def __rich__(self) -> Table:
        from rich.table import Table

        table = Table(caption=f"{self.operations_line}\n{self.trainable}")
        for index, title in enumerate(("layer", "type", *_TITLES)):
            table.add_column(title, justify="left" if index < 2 else "right")
        rows = self.rows()
        for index, row in enumerate(rows):
            table.add_row(*row, end_section=index == len(rows) - 4)
        return table


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
        TypeError: ``input`` holds no tensor.
        ValueError: a layer cannot be merged (:func:`maskedconv.merge_`), or the model has nothing
            to save.
        ModuleNotFoundError: safetensors is not installed; the size of a checkpoint needs it.
    """
    arguments = arguments_of(input)
    with kept_randomness():
        whole = merge_(copy.deepcopy(model)).requires_grad_(True)
        layers, total = _costs(copy.deepcopy(model), arguments, optimizer)
        _, full = _costs(copy.deepcopy(whole), arguments, optimizer)
        return Summary(
            layers,
            total,
            full,
            count_operations(model, arguments),
            count_operations(whole, arguments),
        )


def _costs(
    model: nn.Module, arguments: Arguments, optimizer: MakeOptimizer
) -> tuple[tuple[LayerCosts, ...], Costs]:
    """The costs of each layer and of all; takes a step of ``model``."""
    file_bytes = _file_bytes(model)
    model.zero_grad(set_to_none=True)
    kept = kept_by_module(model, arguments)
    run_step(model, arguments)
    state = _optimizer_state(model, optimizer)
    counted: set[int] = set()
    layers = [
        LayerCosts(name, type(module).__name__, _own_costs(module, state, kept[name], counted))
        for name, module in model.named_modules()
    ]
    columns = zip(*(layer.costs.values() for layer in layers), strict=True)
    learned, frozen, gradients, states, _, activations, reduced = map(sum, columns)
    total = Costs(learned, frozen, gradients, states, file_bytes, activations, reduced)
    return tuple(layer for layer in layers if any(layer.costs.values())), total


def _own_costs(
    module: nn.Module, state: dict[int, int], activations: int, counted: set[int]
) -> Costs:
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
        sum(p.numel() for p in learned),
        frozen,
        sum(p.grad.nbytes for p in learned if p.grad is not None),
        sum(state.get(id(p), 0) for p in learned),
        sum(t.nbytes for t in (*own, *buffers)),
        activations,
        sum(p.nbytes for p in learned),
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


def _file_bytes(model: nn.Module) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(model, path)
        return path.stat().st_size


def _number(value: int) -> str:
    return f"{value:,}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"
