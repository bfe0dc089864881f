"""Explains which backends run for a layer, and why."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from maskedconv.nn.as_before import randomness_restored
from maskedconv.ops.dispatch import Decision, recorded_decisions


class Explanation(tuple[Decision, ...]):
    """The decisions of one forward and backward pass, in their order; prints as text."""

    __slots__ = ()

    def __str__(self) -> str:
        if not self:
            return "nothing to choose: the layer has no filters to pack, and none to learn in part"
        return "\n".join(str(decision) for decision in self)


def explain(layer: nn.Module, input: Tensor) -> Explanation:
    """Runs a copy of ``layer`` forward and backward on ``input`` and tells which backends ran.

    Args:
        layer: a MaskedConv2d, or any module that holds some.
        input: what it would be called with; ``[N, C, H, W]``. Only its shape, type, device and
            memory format matter: its gradient is asked for, as within a network, unless its type
            has none. The gradient of each tensor that the layer returns is one like it.

    Returns:
        The decision for each operator, with the reasons why other backends cannot run.

    Raises:
        ValueError, TypeError, RuntimeError: what the layer raises for this input, or
            MASKEDCONV_BACKEND names a backend that cannot run.
    """
    restored = randomness_restored(layer, input)
    with recorded_decisions() as decisions, torch.enable_grad(), restored:
        own = input.detach().requires_grad_(input.is_floating_point() or input.is_complex())
        results = tree_leaves(copy.deepcopy(layer)(own))
        outputs = [one for one in results if isinstance(one, Tensor) and one.requires_grad]
        torch.autograd.backward(outputs, [torch.ones_like(one) for one in outputs])
    return Explanation(decisions)
