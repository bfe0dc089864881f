"""Concatenated feature maps of a dense block, stored in one buffer."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.functional.appending import append_channels
from maskedconv.ops.bn_statistics import batch_moments
from maskedconv.ops.bn_statistics.reference import mean_and_variance, moments_type
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
        self._moments: Tensor | None = None  # of the first `_known` channels
        self._known = 0
        self._table: Tensor | None = None
        self._last: Tensor | None = first  # until its moments are known
        # Compilers plan memory themselves.
        if torch.compiler.is_compiling() or is_traced(first):
            self.whole = first
            return
        self._buffer = channel_buffer(first, channels)
        self.whole = append_channels(None, first, self._buffer)

    def append(self, new: Tensor) -> None:
        """Appends ``new [N, K, H, W]`` to the channels so far."""
        if self._buffer is None or new.dtype != self._buffer.dtype:
            self._buffer = None
            self.whole = torch.cat((self.whole, new), 1)
        else:
            self.whole = append_channels(self.whole, new, self._buffer)
        self._last = new

    def moments(self) -> Tensor:
        """Batch mean and biased variance, ``[2, C']``; earlier channels are not computed again."""
        count = self.whole.size(1)
        if self._known < count:
            new = self._unknown(count).detach()
            self._moments = self._written(new) if self._buffer is not None else self._joined(new)
            self._known = count
        assert self._moments is not None
        return self._moments

    def _unknown(self, count: int) -> Tensor:
        """The channels without moments; those appended last are dense, and faster to read."""
        last, self._last = self._last, None
        if last is None or self._known + last.size(1) != count or last.dtype != self.whole.dtype:
            return self.whole[:, self._known :]
        return last

    def _written(self, new: Tensor) -> Tensor:
        """All moments, those of ``new`` in a table that has room for the final channels."""
        if self._table is None:
            assert self._buffer is not None
            size = (5, self._buffer.size(1))
            self._table = torch.empty(size, dtype=moments_type(new), device=new.device)
            if self._moments is not None:
                self._table[:2, : self._known] = self._moments
        count = self._known + new.size(1)
        batch_moments(new, self._table[:, self._known : count])
        return self._table[:2, :count]

    def _joined(self, new: Tensor) -> Tensor:
        moments = torch.stack(mean_and_variance(new))
        return moments if self._moments is None else torch.cat((self._moments, moments), 1)


def channel_buffer(like: Tensor, channels: int) -> Tensor:
    """New memory for so many channels of images ``[N, C, H, W]``.

    On a GPU it has a multiple of 8 channels, so that its pixels are aligned, and kernels read 16
    bytes at once.
    """
    padded = -(-channels // 8) * 8 if like.is_cuda else channels
    return torch.empty(
        (like.size(0), padded, *like.shape[2:]), dtype=like.dtype, device=like.device,
        memory_format=memory_format_of(like),
    )  # fmt: skip
