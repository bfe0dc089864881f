"""A network's threshold as one of its layers holds it, and whether it belongs to the scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode

from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.ops.masked_weight import Threshold
from maskedconv.ops.plain import version_and_address
from maskedconv.tracing import is_transformed

_State = tuple[int, int, bool]  # version and address, and whether values are of a transform

_LIBRARY = torch.library.Library("maskedconv", "FRAGMENT")
_LIBRARY.define("version(Tensor tensor) -> Tensor")


class SeenThreshold(NamedTuple):
    """The threshold of a network for a layer, and the scores that it belongs to.

    A copy or a pickle of a layer has scores of its own, so that None takes its place there. The
    layer forgets it where others take the place of its scores. Changes through ``.data`` that leave
    these in their memory are not noticed.

    Attributes:
        threshold: of the network.
        scores: the state of those that it was computed of; in compiled code a tensor.
    """

    threshold: Threshold
    scores: _State | Tensor

    @staticmethod
    def of(threshold: Threshold, scores: Tensor) -> SeenThreshold:
        """Of the present ``scores``."""
        if torch.compiler.is_compiling():
            # While a graph is recorded, its tensors have versions of their own.
            return SeenThreshold(threshold, torch.ops.maskedconv.version(scores))
        return SeenThreshold(threshold, _state_of(scores))

    def belongs_to(self, scores: Tensor) -> bool:
        """Whether ``scores`` are those that the threshold was computed of."""
        seen = self.scores
        return (tuple(seen.tolist()) if isinstance(seen, Tensor) else seen) == _state_of(scores)

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing, ()


class ThresholdHolder(PartlyLearned):
    """A layer with scores, which may hold the threshold of its network.

    Attributes:
        is_in_network: whether it is in a network that computes the threshold before each call.
    """

    scores: nn.Parameter
    is_in_network: bool
    _seen_threshold: SeenThreshold | None

    def set_network_threshold(self, threshold: Threshold) -> None:
        """Sets the network's threshold for the present scores, if that is the one to use."""
        self._seen_threshold = SeenThreshold.of(threshold, self.scores)

    def knows_threshold(self) -> bool:
        """Whether it holds the threshold of the present scores."""
        seen = self._seen_threshold
        return seen is not None and (torch.compiler.is_compiling() or seen.belongs_to(self.scores))

    def known_threshold(self) -> Threshold:
        """The threshold of the present scores; in compiled code, that of the network's last call.

        Raises:
            RuntimeError: it is not known.
        """
        seen = self._seen_threshold
        if seen is None or not self.knows_threshold():
            raise RuntimeError(
                "the threshold of the network is not known for these scores; call the network, or "
                "maskedconv.nn.global_threshold.update_thresholds(network), before reading the "
                "weight or the mask of a layer"
            )
        return seen.threshold

    def values_replaced(self) -> None:
        self._seen_threshold = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.values_replaced()
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.values_replaced()


def _nothing() -> None:
    return None


def _state_of(tensor: Tensor) -> _State:
    # What a transform of torch.func or FakeTensorMode computes is of no use after it.
    return (*version_and_address(tensor), is_transformed() or detect_fake_mode() is not None)


@torch.library.impl(_LIBRARY, "version", "CompositeExplicitAutograd")
def _version(tensor: Tensor) -> Tensor:
    return torch.tensor(_state_of(tensor), device="cpu")


@torch.library.register_fake("maskedconv::version", lib=_LIBRARY)
def _fake_version(_: Tensor) -> Tensor:
    return torch.empty(3, dtype=torch.int64, device="cpu")
