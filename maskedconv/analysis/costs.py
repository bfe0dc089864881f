"""The costs of training: the numbers, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

_TITLES = (
    "learned", "frozen", "gradients", "optimizer", "checkpoint", "activations", "packed",
    "all-reduce", "operations", "of full",
)  # fmt: skip


class Costs(NamedTuple):
    """Scalars, bytes and operations of one layer, or of a model.

    Attributes:
        learned: scalars that require a gradient.
        frozen: the other scalars of parameters; zeroed ones included.
        gradients: bytes of the gradients after one backward pass, measured.
        optimizer: bytes of the optimizer's state after one step, measured.
        checkpoint: bytes that :func:`maskedconv.save` stores; for a model the size of its file.
        activations: bytes kept for backward besides parameters, buffers and weights, measured.
        packed: bytes of weights kept for backward: those that layers assembled for the pass from
            their learned and frozen values, measured.
        all_reduce: bytes of gradients that data parallel training sums in a step.
        operations: floating-point operations of a forward and backward pass, in convolutions and
            matrix products; a multiplication and an addition are two.
    """

    learned: int = 0
    frozen: int = 0
    gradients: int = 0
    optimizer: int = 0
    checkpoint: int = 0
    activations: int = 0
    packed: int = 0
    all_reduce: int = 0
    operations: int = 0

    @property
    def total(self) -> int:
        """All scalars of parameters."""
        return self.learned + self.frozen


@dataclass(frozen=True)
class LayerCosts:
    """The costs of a module's own parameters, without those of the modules in it.

    Attributes:
        name: of the module in the model; empty for the model itself.
        kind: its class.
        costs: of it.
        full_operations: its operations if the merged model is trained.
    """

    name: str
    kind: str
    costs: Costs
    full_operations: int


@dataclass(frozen=True)
class Summary:
    """The costs of one step of training. ``str`` gives a table, and ``rich.print`` a coloured one.

    Attributes:
        layers: those with costs, in the model's order.
        total: of the model.
        full: of the merged model, which learns everything, by the same measurements and without
            :func:`maskedconv.fuse_`.
    """

    layers: tuple[LayerCosts, ...]
    total: Costs
    full: Costs

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
            _row(one.name or "(model)", one.kind, one.costs, one.full_operations)
            for one in self.layers
        ]
        rows.append(_row("total", "", self.total, self.full.operations))
        rows.append(_row("full training", "", self.full, self.full.operations))
        shares = zip(self.total, self.full, strict=True)
        rows.append(["share", "", *(_share(part, whole) for part, whole in shares), ""])
        return rows

    @property
    def operations_line(self) -> str:
        """The operations of a step against those of full training."""
        share = _share(self.total.operations, self.full.operations)
        return (
            f"operations of a step: {self.total.operations:,} || full training: "
            f"{self.full.operations:,} || share: {share}"
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


def _row(name: str, kind: str, costs: Costs, full_operations: int) -> list[str]:
    share = _share(costs.operations, full_operations)
    return [name, kind, *(f"{value:,}" for value in costs), share]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"
