"""A network's threshold as one of its layers holds it, and whether it belongs to the scores."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.masked_weight import Threshold
from maskedconv.ops.plain import is_plain
from maskedconv.tracing import is_transformed

_LIBRARY = torch.library.Library("maskedconv", "FRAGMENT")
_LIBRARY.define("version(Tensor tensor) -> Tensor")


class _Seen:
    """A tensor as it was: neither another one since, nor in other memory, nor changed in place.

    Changes through ``.data`` that leave it in its memory are not noticed.
    """

    # Slots, so that a search of a layer's attributes does not find its scores here once more.
    __slots__ = ("_in_transform", "_state", "_tensor")

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = weakref.ref(tensor)
        self._state = _state_of(tensor)
        self._in_transform = is_transformed()

    def is_present(self, tensor: Tensor) -> bool:
        # What a transform of torch.func computes is of no use after it.
        same = self._tensor() is tensor and self._in_transform == is_transformed()
        return same and self._state == _state_of(tensor)


class SeenThreshold(NamedTuple):
    """The threshold of a network for a layer, and the scores that it belongs to.

    A copy or a pickle of a layer has scores of its own, so that None takes its place there.

    Attributes:
        threshold: of the network.
        scores: that it was computed of; of compiled code, their version and address.
    """

    threshold: Threshold
    scores: _Seen | Tensor

    @staticmethod
    def of(threshold: Threshold, scores: Tensor) -> SeenThreshold:
        """Of the present ``scores``."""
        if torch.compiler.is_compiling():
            # While a graph is recorded, its tensors have versions of their own.
            return SeenThreshold(threshold, torch.ops.maskedconv.version(scores))
        return SeenThreshold(threshold, _Seen(scores))

    def belongs_to(self, scores: Tensor) -> bool:
        """Whether ``scores`` are those that the threshold was computed of."""
        if isinstance(self.scores, _Seen):
            return self.scores.is_present(scores)
        return tuple(self.scores.tolist()) == _state_of(scores)

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing, ()


def known_threshold(seen: SeenThreshold | None, scores: Tensor) -> Threshold:
    """The threshold for ``scores``; in compiled code, that of the network's last call.

    Raises:
        RuntimeError: it is not known.
    """
    if seen is None or not (torch.compiler.is_compiling() or seen.belongs_to(scores)):
        raise RuntimeError(
            "the threshold of the network is not known for these scores; call the network, or "
            "maskedconv.nn.global_threshold.update_thresholds(network), before reading the "
            "weight or the mask of a layer"
        )
    return seen.threshold


def _nothing() -> None:
    return None


def _state_of(tensor: Tensor) -> tuple[int, int]:
    """Version and address of a tensor; 0 for what it does not have."""
    version = 0 if tensor.is_inference() else tensor._version
    return version, tensor.data_ptr() if is_plain(tensor) else 0


@torch.library.impl(_LIBRARY, "version", "CompositeExplicitAutograd")
def _version(tensor: Tensor) -> Tensor:
    return torch.tensor(_state_of(tensor), device="cpu")


@torch.library.register_fake("maskedconv::version", lib=_LIBRARY)
def _fake_version(_: Tensor) -> Tensor:
    return torch.empty(2, dtype=torch.int64, device="cpu")
