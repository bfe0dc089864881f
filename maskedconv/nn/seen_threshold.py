"""A network's threshold as one of its layers holds it, and whether it belongs to the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode
from torch.utils.weak import WeakIdRef

from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.ops.masked_weight import Threshold
from maskedconv.ops.plain import active_modes, version_and_address
from maskedconv.tracing import is_transformed

# Version and address, whether values are of a transform or of a FakeTensorMode, and the tensor
# itself if it has no address.
_State = tuple[int, int, bool, WeakIdRef | None]

_LIBRARY = torch.library.Library("maskedconv", "FRAGMENT")
_LIBRARY.define("scores_state(Tensor scores) -> Tensor")


@dataclass(eq=False)
class ThresholdGroup:
    """The layers that were given one joint threshold; all of them have this object.

    Copies and pickles of a network have one of their own.

    Attributes:
        size: the number of these layers.
    """

    size: int


class SeenThreshold(NamedTuple):
    """The threshold of a network for a layer, and the scores that it belongs to.

    A copy or a pickle of a layer has scores of its own, so that None takes its place there. The
    layer drops it when its scores are replaced. Changes through ``.data`` that leave
    these in their memory are not noticed.

    Attributes:
        threshold: of the network.
        state: of the scores that it was computed from; in compiled code a tensor.
    """

    threshold: Threshold
    state: _State | Tensor

    @staticmethod
    def of(threshold: Threshold, scores: Tensor) -> SeenThreshold:
        """``threshold`` with the state of the present ``scores``."""
        if torch.compiler.is_compiling():
            # While a graph is recorded, its tensors have versions of their own.
            return SeenThreshold(threshold, torch.ops.maskedconv.scores_state(scores))
        return SeenThreshold(threshold, _state_of(scores))

    def belongs_to(self, scores: Tensor) -> bool:
        """Whether ``scores`` are those that the threshold was computed from."""
        if isinstance(self.state, Tensor):
            return self.state.tolist() == _numbers_of(scores)
        return self.state == _state_of(scores)

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing, ()


class ThresholdHolder(PartlyLearned):
    """A layer with scores, which may hold the threshold of its network.

    Attributes:
        threshold_group: of the layers that have one threshold with it; None until they are known.
    """

    scores: nn.Parameter
    threshold_group: ThresholdGroup | None
    _seen_threshold: SeenThreshold | None

    def set_network_threshold(self, threshold: Threshold) -> None:
        """Sets the network's threshold for the present scores."""
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

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        # PyTorch calls it for `layer.scores = nn.Parameter(...)`, too.
        super().register_parameter(name, param)
        if name == "scores":
            self.values_replaced()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.values_replaced()  # Before, as PyTorch swaps no tensor with a weak reference.
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.values_replaced()
        super()._load_from_state_dict(*arguments)


def _nothing() -> None:
    return None


def _state_of(scores: Tensor) -> _State:
    version, address = version_and_address(scores)
    # Results of a torch.func transform or FakeTensorMode are of no use after it. Without any
    # mode, FakeTensorMode is not looked for: this runs for each layer in each forward pass.
    passing = is_transformed() or bool(active_modes() and detect_fake_mode() is not None)
    return version, address, passing, None if address else WeakIdRef(scores)


def _numbers_of(scores: Tensor) -> list[int]:
    """The part of the state that a tensor can hold."""
    return [int(one) for one in _state_of(scores)[:3]]


@torch.library.impl(_LIBRARY, "scores_state", "CompositeExplicitAutograd")
def _scores_state(scores: Tensor) -> Tensor:
    return torch.tensor(_numbers_of(scores), device="cpu")


@torch.library.register_fake("maskedconv::scores_state", lib=_LIBRARY)
def _fake_scores_state(_: Tensor) -> Tensor:
    return torch.empty(3, dtype=torch.int64, device="cpu")
