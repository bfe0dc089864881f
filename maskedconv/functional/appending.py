"""Appending channels to a tensor in memory that was allocated before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def append_channels(whole: Tensor | None, new: Tensor, buffer: Tensor) -> Tensor:
    """``torch.cat((whole, new), 1)`` without copying ``whole``.

    Args:
        whole: ``[N, C, H, W]``, the first channels of ``buffer``; None for none yet.
        new: ``[N, K, H, W]``; copied.
        buffer: ``[N, C', H, W]`` with C' >= C + K.

    Returns:
        ``[N, C + K, H, W]``, a view of ``buffer``, differentiable towards ``whole`` and ``new``.
    """
    if torch.is_grad_enabled():
        return _Append.apply(whole, new, buffer)
    return _written(whole, new, buffer)


def _written(whole: Tensor | None, new: Tensor, buffer: Tensor) -> Tensor:
    start = 0 if whole is None else whole.size(1)
    # `data` counts its changes separately: appending does not touch the channels before, which
    # autograd may have saved.
    view = buffer.data[:, : start + new.size(1)]
    view[:, start:].copy_(new)
    return view


class _Append(torch.autograd.Function):
    """Writes ``new`` behind the channels ``whole`` of ``buffer``; returns the longer view."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor | None, new: Tensor, buffer: Tensor) -> Tensor:
        ctx.start, ctx.new = 0 if whole is None else whole.size(1), new.size(1)
        return _written(whole, new, buffer)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        before = grad_output[:, : ctx.start] if ctx.start else None
        return before, grad_output.narrow(1, ctx.start, ctx.new), None
