"""Concatenated feature maps of a dense block, stored in one buffer."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.functional.appending import append_channels
from maskedconv.functional.batch_norm import Moments, batch_moments
from maskedconv.ops.geometry import memory_format_of
from maskedconv.tracing import is_traced


class GrowingFeatures:
    """Replaces ``torch.cat((features, new), 1)`` after each layer, without its copies.

    Every state is a view of the first channels of one buffer. Autograd saves this buffer once,
    however many layers read it. Changing a state in place raises.

    Args:
        first: ``[N, C, H, W]``, the first channels; copied.
        channels: the final number of channels.

    Attributes:
        whole: ``[N, C', H, W]``, all channels so far; differentiable.
    """

    def __init__(self, first: Tensor, channels: int) -> None:
        self._buffer: Tensor | None = None
        self._moments: Moments | None = None
        # Compilers plan memory themselves.
        if torch.compiler.is_compiling() or is_traced(first):
            self.whole = first
            return
        size = (first.size(0), channels, *first.shape[2:])
        self._buffer = torch.empty(
            size, dtype=first.dtype, device=first.device, memory_format=memory_format_of(first)
        )
        self.whole = append_channels(None, first, self._buffer)

    def append(self, new: Tensor) -> None:
        """Appends ``new [N, K, H, W]`` to the channels so far."""
        if self._buffer is None or new.dtype != self._buffer.dtype:
            self._buffer = None
            self.whole = torch.cat((self.whole, new), 1)
        else:
            self.whole = append_channels(self.whole, new, self._buffer)

    def moments(self) -> Moments:
        """Batch mean and variance of each channel; earlier channels are not computed again."""
        known = self._moments
        done = 0 if known is None else known.mean.size(0)
        if done < self.whole.size(1):
            new = batch_moments(self.whole.detach()[:, done:])
            both = new if known is None else map(torch.cat, zip(known, new, strict=True))
            self._moments = Moments(*both)
        assert self._moments is not None
        return self._moments
