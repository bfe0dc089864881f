"""Learning a slice of each weight (Rosenfeld & Tsotsos 2018, section 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from maskedconv import slices
from maskedconv.checks import check_choice
from maskedconv.functional.selected import order_of
from maskedconv.methods.method import Configuration, LayerFactory, Method
from maskedconv.methods.which import Chosen, Which, check_which, indices_of
from maskedconv.nn import MaskedConv2d
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.schema import Schema, count, list_of, one_of

# The most zeros that are made on the word of a file alone.
_MOST_ZEROS = 2**31


@dataclass(frozen=True)
class Slice(Method):
    """Some indices of one dimension of the weight are learned; see ``MaskedConv2d``.

    Args:
        learned: a float in [0, 1] is a fraction of the dimension, an int a count.
        slice_dim: 0 output filters, 1 input channels, 2 kernel rows, 3 kernel columns.
        frozen: the rest of the weight: ``"keep"`` for its values before the conversion (in a new
            network, its random start), ``"random"`` for new random values, or ``"zero"``.
        which: the n indices that are learned: the ``"first"`` (Rosenfeld & Tsotsos 2018), the
            ``"last"``, those with the ``"largest"`` or ``"smallest"`` L2 norm, n at ``"random"``, a
            list or tensor of n ints, or a list or tensor of floats, one score for each index, of
            which the n highest are learned. Only ``convert_`` takes others than the first ones.

    Raises:
        TypeError, ValueError: an argument is not one of these.
    """

    learned: float | int
    slice_dim: int = 0
    frozen: Literal["keep", "random", "zero"] = "keep"
    which: Which = "first"

    name = "slice"
    layer = MaskedConv2d
    schema: ClassVar[Mapping[str, Schema]] = {
        "num_learned": count,
        "slice_dim": one_of(*slices.SLICE_DIMS),
        "frozen_mode": one_of(*slices.FROZEN_MODES),
        "weight_shape": list_of(count, 4),
    }

    later_schema: ClassVar[Mapping[str, Schema]] = {"which": list_of(count)}
    later_defaults: ClassVar[Mapping[str, Any]] = {"which": None}
    integers = frozenset({"which"})

    def __post_init__(self) -> None:
        # A frozen dataclass is set this way; the values become Python's own numbers.
        object.__setattr__(self, "learned", slices.check_learned(self.learned))
        object.__setattr__(self, "slice_dim", slices.check_slice_dim(self.slice_dim))
        check_choice("frozen", self.frozen, ("keep", *slices.FROZEN_MODES))
        object.__setattr__(self, "which", check_which(self.which))

    def factory(self) -> LayerFactory:
        if self.which != "first":
            raise ValueError(
                f"which is {self.which!r}; expected 'first' in a new network. Others are chosen in "
                "a plain one: convert_(merge_(models.create(...)), which=...)"
            )
        return LayerFactory(conv=partial(MaskedConv2d, **self.settings()))

    def learns_all(self) -> bool:
        return isinstance(self.learned, float) and self.learned == 1.0

    def settings(self) -> dict[str, Any]:
        frozen = "zero" if self.frozen == "zero" else "random"
        return {"learned": self.learned, "slice_dim": self.slice_dim, "frozen": frozen}

    def convert(self, plain: nn.Conv2d, seed: int | None) -> MaskedConv2d:
        which = indices_of(
            cast(Chosen, self.which), plain.weight, self.slice_dim, self.learned, seed
        )
        return MaskedConv2d.from_conv2d(
            plain,
            learned=self.learned,
            slice_dim=self.slice_dim,
            frozen=self.frozen,
            which=which,
            seed=seed,
        )

    @classmethod
    def restored(cls, plain: nn.Conv2d, configuration: Configuration) -> MaskedConv2d:
        frozen: Literal["keep", "zero"] = "keep"
        if configuration["frozen_mode"] == "zero":
            frozen = "zero"
        return cls.layer.from_conv2d(
            plain,
            learned=configuration["num_learned"],
            slice_dim=configuration["slice_dim"],
            frozen=frozen,
            which=configuration.get("which"),
        )

    def unlearned(self, layers: Sequence[tuple[str, PartlyLearned]]) -> str:
        none = [f"{name} ({one.weight_shape[0]})" for name, one in layers if not one.num_learned]
        if not self.learned or not none:
            return ""
        return (
            f"learned={self.learned} learns no filter of these convolutions, which have too few "
            f"(the number of filters in parentheses): {', '.join(none)}"
        )

    @staticmethod
    def mistake(configuration: Configuration) -> str:
        shape, dim = configuration["weight_shape"], configuration["slice_dim"]
        learned = configuration["num_learned"]
        if learned <= shape[dim]:
            return _mistaken_indices(configuration, shape[dim])
        return (
            f"num_learned is {learned}; expected at most what weight_shape {shape} has in "
            f"dimension {dim}"
        )

    @staticmethod
    def stored_shapes(configuration: Configuration) -> dict[str, list[int]]:
        shape, dim = configuration["weight_shape"], configuration["slice_dim"]
        learned = configuration["num_learned"]
        stored = shape[dim] - learned if configuration["frozen_mode"] == "random" else 0
        shapes = {
            "learned": [*shape[:dim], learned, *shape[dim + 1 :]] if learned else None,
            "frozen": [*shape[:dim], stored, *shape[dim + 1 :]] if stored else None,
            # A bias belongs to the output filters: only a slice of those splits it.
            "bias_learned": [shape[0] if dim else learned] if dim or learned else None,
            "bias_frozen": [stored] if stored and not dim else None,
            "which": [learned] if "which" in configuration else None,
        }
        return {name: size for name, size in shapes.items() if size}

    @staticmethod
    def plain_values(
        configuration: Configuration, stored: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        shape, dim = configuration["weight_shape"], configuration["slice_dim"]
        if math.prod(shape) > _MOST_ZEROS and configuration["frozen_mode"] == "zero":
            raise ValueError(f"weight_shape is {shape}; too large")
        values = {}
        for plain, own, size, along in (
            ("weight", "", shape[dim], dim),
            ("bias", "bias_", shape[0], 0),
        ):
            names = [f"{own}learned", f"{own}frozen"]
            if parts := [stored[name] for name in names if name in stored]:
                whole = _padded(torch.cat(parts, along), size, along)
                which = configuration.get("which")
                if which is not None and along == dim:
                    whole = whole.index_select(along, order_of(which, size))
                values[plain] = whole
        return values


def _mistaken_indices(configuration: Configuration, size: int) -> str:
    """Why ``which`` does not fit; empty if it does."""
    which = configuration.get("which")
    try:
        kept = slices.check_indices(which, configuration["num_learned"], size)
    except ValueError as error:
        return str(error)
    if which is None or (kept is not None and list(kept) == which):
        return ""
    return f"which is {which}; expected ascending indices that are not the first ones"


def _padded(tensor: Tensor, size: int, dim: int) -> Tensor:
    """``tensor`` with zeros behind it, ``size`` long along ``dim``."""
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)
