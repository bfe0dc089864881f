"""Binary activations: the sign, with the gradient of a smooth approximation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskedconv.tracing import needs_operators


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input)
        return input.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (input,) = ctx.saved_tensors
        return (grad * (2 - 2 * input.abs()).clamp_(min=0),)


def binary_sign(input: Tensor) -> Tensor:
    """``sign(input)`` with gradient ``2 (1 - |input|)`` for ``|input| < 1``, and 0 beyond.

    Source: Diffenderfer & Kailkhura 2021 (arXiv 2103.09377), after Liu et al. 2018, *Bi-Real Net*
    (arXiv 1808.00278).
    """
    if needs_operators():
        return _by_operators(input)
    return _Sign.apply(input)


def _by_operators(input: Tensor) -> Tensor:
    """The same by PyTorch's operators, for ``torch.func`` and forward-mode AD."""
    inside = input.clamp(-1, 1)
    smooth = 2 * inside - inside * inside.abs()
    return input.sign() + (smooth - smooth.detach())
