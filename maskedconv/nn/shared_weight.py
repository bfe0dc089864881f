"""A frozen weight that several layers hold: one tensor, whichever way they are moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from maskedconv.nn.remembered import forget_frozen
from maskedconv.nn.seen_threshold import ThresholdHolder

_MOVED = "_moved_to"  # an attribute of the tensor that was there before


class SharedWeight(ThresholdHolder):
    """A layer with a buffer ``frozen`` that may be another layer's, too.

    Attributes:
        frozen: the weight before the mask.
    """

    frozen: Tensor
    # Whether its values are not this layer's to draw.
    _is_given: bool

    def share_frozen(self, other: SharedWeight) -> None:
        """Uses the frozen weight of ``other``, with its seed; the scores keep their own."""
        self.frozen, self.seed, self._is_given = other.frozen, other.seed, True

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As ``nn.Module`` does, but the frozen weight stays the same tensor, as parameters do.

        It cannot from or to the meta device. Layers that share it get the same new one there.
        """
        before = self.frozen
        super()._apply(fn, recurse)
        after, self.frozen = self.frozen, _moved_together(before, self.frozen)
        if self.frozen is not before and (before.is_meta or after.is_meta):
            # There are no values to keep. The first layer that is moved draws new ones for all.
            forget_frozen(self)
            self._is_given = self._is_given and self.frozen is not after
        return self


def _moved_together(before: Tensor, after: Tensor) -> Tensor:
    """What all layers that hold ``before`` have after a move, for the result of one of them.

    It is ``before`` itself with new memory if PyTorch can do that, else the first layer's result.
    """
    if torch._has_compatible_shallow_copy_type(before, after):
        before.data = after
        return before
    first: Tensor | None = vars(before).get(_MOVED)
    if first is None or (first.device, first.dtype) != (after.device, after.dtype):
        first = vars(before)[_MOVED] = after
    return first
