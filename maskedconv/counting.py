"""Parameter counts as the paper counts them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from maskedconv.nn import MaskedConv2d


@dataclass(frozen=True)
class ParameterCount:
    """Scalars in a model: those that training changes, and all of them."""

    learned: int
    total: int

    @property
    def fraction(self) -> float:
        """Learned share of all parameters, in [0, 1]."""
        return self.learned / self.total if self.total else 0.0


def count_parameters(model: nn.Module) -> ParameterCount:
    """Counts the parameters that require a gradient, and all parameters of the architecture.

    The total includes frozen and zeroed filters and their biases, so that it does not depend on
    what is learned. Running statistics count in neither. A parameter or frozen part that several
    layers share counts once.
    """
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    counted: set[int] = set()
    for module in model.modules():
        if isinstance(module, MaskedConv2d):
            for frozen, count in _frozen_parts(module):
                if id(frozen) not in counted:
                    total += count
                if frozen is not None:
                    counted.add(id(frozen))
    return ParameterCount(learned, total)


def _frozen_parts(layer: MaskedConv2d) -> list[tuple[Tensor | None, int]]:
    """The frozen weight and bias (None when zero), each with the scalars that it stands for."""
    size = layer.weight_shape[layer.slice_dim]
    weights = math.prod(layer.weight_shape) // size * layer.num_frozen
    biases = layer.num_frozen if layer.has_bias and layer.slice_dim == 0 else 0
    return [(layer.frozen, weights), (layer.bias_frozen, biases)]
