"""How much each layer learns: one value for all, by name, by a function, or by its shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, cast

from torch import Tensor, nn

from maskedconv import slices
from maskedconv.checks import check_fraction
from maskedconv.conversion.by_layer import values_by_layer
from maskedconv.conversion.naming import Layers

Fraction = float | int
"""A float in [0, 1] is a fraction of a layer's slice dimension, an int a count."""

FractionOf = Callable[[nn.Module, str], Fraction]


@dataclass(frozen=True)
class ErdosRenyiKernel:
    """Fractions by the shapes of the layers; see :func:`erk`."""

    fraction: float

    def __post_init__(self) -> None:
        # A frozen dataclass is set this way.
        object.__setattr__(self, "fraction", check_fraction("fraction", self.fraction))

    def densities(self, shapes: Sequence[tuple[int, ...]]) -> list[float]:
        """The fraction of each weight, in [0, 1], from the shapes of all weights."""
        sizes = [math.prod(shape) for shape in shapes]
        scores = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
        dense: set[int] = set()
        while True:
            # Layers that would exceed their size are learned in full; the others share the rest.
            others = [i for i in range(len(shapes)) if i not in dense]
            left = self.fraction * sum(sizes) - sum(sizes[i] for i in dense)
            scale = left / max(sum(scores[i] * sizes[i] for i in others), 1)
            if not (full := {i for i in others if scores[i] * scale > 1}):
                break
            dense |= full
        return [1.0 if i in dense else scores[i] * scale for i in range(len(shapes))]


LearnedByLayer = Mapping[str, Fraction] | FractionOf | ErdosRenyiKernel
Learned = Fraction | LearnedByLayer


def erk(fraction: float) -> ErdosRenyiKernel:
    """``learned`` of :func:`maskedconv.convert_`: a total, divided by the layers' shapes.

    A layer with the weight ``[O, I / groups, kH, kW]`` learns a fraction proportional to
    ``(O + I / groups + kH + kW) / (O * I / groups * kH * kW)``, at most all of it. Small layers
    thus learn a larger fraction. Each layer learns the nearest whole number of indices.

    Source: Evci et al. 2020, *Rigging the Lottery*, section 3 (arXiv 1911.11134), where the
    fraction is that of the single weights which a sparse layer has.

    Args:
        fraction: learned fraction of all weights of the converted layers, in [0, 1].

    Raises:
        TypeError, ValueError: ``fraction`` is not such a number.
    """
    return ErdosRenyiKernel(fraction)


def is_by_layer(learned: Learned) -> TypeGuard[LearnedByLayer]:
    """Whether ``learned`` gives each layer a value of its own."""
    return isinstance(learned, Mapping | ErdosRenyiKernel) or callable(learned)


def fractions_by_layer(
    learned: LearnedByLayer, chosen: Layers, slice_dim: int
) -> dict[str, Fraction]:
    """The learned part of each of the ``chosen`` layers, by its name.

    Raises:
        TypeError, ValueError: ``learned`` does not give every layer such a value, gives one layer
            two, or has a pattern that matches none of them.
    """
    if isinstance(learned, ErdosRenyiKernel):
        return _by_shape(learned, chosen, slice_dim)
    return values_by_layer("learned", learned, slices.check_learned, chosen)


def _by_shape(learned: ErdosRenyiKernel, chosen: Layers, slice_dim: int) -> dict[str, Fraction]:
    layers = {id(layer): layer for _, layer in chosen}
    shapes = [tuple(cast(Tensor, layer.weight).shape) for layer in layers.values()]
    found = {
        key: _nearest(density, shape[slice_dim])
        for key, density, shape in zip(layers, learned.densities(shapes), shapes, strict=True)
    }
    return {name: found[id(layer)] for name, layer in chosen}


def _nearest(density: float, size: int) -> Fraction:
    """The count nearest to ``density``; a positive density that gives none stays a fraction."""
    return round(density * size) or density
