"""Backward passes whose gradients cannot be differentiated again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Backward = Callable[..., tuple[Tensor | None, ...]]


def once_differentiable(layer: str) -> Callable[[Backward], Backward]:
    """Marks the ``backward`` of an autograd.Function: it raises under ``create_graph=True``.

    ``torch.autograd.function.once_differentiable`` returns gradients that raise when they are
    differentiated, and only if a gradient that comes in depends on something. The gradients of the
    layer nearest to the loss depend on its parameters and its input as well, and would be taken for
    constants. Nor does autograd call what raises if it is asked for the gradients of some tensors
    alone (``inputs``): no path leads there to the layer's parameters and input.

    Args:
        layer: that the message names.
    """
    message = (
        f"the second derivative of {layer} is not supported (create_graph=True); compute the first "
        "one by torch.func.grad or torch.func.vjp, with norms in evaluation mode"
    )

    def mark(backward: Backward) -> Backward:
        @functools.wraps(backward)
        def once(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            # Autograd records backward only under create_graph. A compiled graph raises by itself.
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                raise RuntimeError(message)
            return backward(ctx, *grads)

        return once

    return mark
