"""Backward passes whose gradients cannot be differentiated again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Backward = Callable[..., tuple[Tensor | None, ...]]


def once_differentiable(layer: str) -> Callable[[Backward], Backward]:
    """Marks the ``backward`` of an autograd.Function: a second differentiation raises.

    ``torch.autograd.function.once_differentiable`` lets it raise only if a gradient that comes in
    depends on something. The gradients of the layer nearest to the loss depend on its parameters
    and its input as well, and would be taken for constants.

    Args:
        layer: that the message names.
    """
    message = (
        f"the second derivative of {layer} is not supported; compute the first one by "
        "torch.func.grad or torch.func.vjp, with norms in evaluation mode"
    )

    def mark(backward: Backward) -> Backward:
        @functools.wraps(backward)
        def once(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            # A compiled graph raises by itself.
            if not torch.is_grad_enabled() or torch.compiler.is_compiling():
                return backward(ctx, *grads)
            with torch.no_grad():
                found = backward(ctx, *grads)
            return _raising(found, message)

        return once

    return mark


def _raising(grads: tuple[Tensor | None, ...], message: str) -> tuple[Tensor | None, ...]:
    """The same values; each raises when it is differentiated.

    Raises:
        RuntimeError: at once for a batch of gradients (``is_grads_batched``, ``vectorize``).
    """
    if any(grad is not None and _is_batch(grad) for grad in grads):
        raise RuntimeError(message)
    delayed = torch._C._functions.DelayedError(message.encode(), len(grads))
    found: list[Any] = [None if grad is None else grad.detach().requires_grad_() for grad in grads]
    return tuple(delayed(*found))


def _is_batch(grad: Tensor) -> bool:
    return torch._C._functorch.is_legacy_batchedtensor(grad)
