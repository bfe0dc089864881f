"""Parameter counts as the paper counts them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

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
    """Counts parameters that require a gradient, and all that the architecture has.

    The total includes frozen and zeroed filters and their biases, so that it does not depend on
    what is learned. Running statistics count in neither.
    """
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    for module in model.modules():
        if isinstance(module, MaskedConv2d):
            whole = math.prod(module.weight_shape) + module.out_channels * module.has_bias
            total += whole - sum(p.numel() for p in module.parameters(recurse=False))
    return ParameterCount(learned, total)
