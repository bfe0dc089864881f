"""A network's threshold as one of its layers holds it, and whether it belongs to the scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.masked_weight import Threshold

_LIBRARY = torch.library.Library("maskedconv", "FRAGMENT")
_LIBRARY.define("version(Tensor tensor) -> Tensor")


class SeenThreshold(NamedTuple):
    """The threshold of a network for a layer, and the version of the scores that it belongs to."""

    threshold: Threshold
    version: int | Tensor

    @staticmethod
    def of(threshold: Threshold, scores: Tensor) -> SeenThreshold:
        """Of the present ``scores``."""
        if torch.compiler.is_compiling():
            # While a graph is recorded, its tensors have versions of their own.
            return SeenThreshold(threshold, torch.ops.maskedconv.version(scores))
        return SeenThreshold(threshold, scores._version)


def known_threshold(seen: SeenThreshold | None, scores: Tensor) -> Threshold:
    """The threshold for ``scores``; in compiled code, that of the network's last call.

    Raises:
        RuntimeError: it is not known.
    """
    if seen is None or not (torch.compiler.is_compiling() or seen.version == scores._version):
        raise RuntimeError(
            "the threshold of the network is not known for these scores; call the network, or "
            "maskedconv.nn.global_threshold.update_thresholds(network), before reading the "
            "weight or the mask of a layer"
        )
    return seen.threshold


@torch.library.impl(_LIBRARY, "version", "CompositeExplicitAutograd")
def _version(tensor: Tensor) -> Tensor:
    return torch.tensor(tensor._version, device="cpu")


@torch.library.register_fake("maskedconv::version", lib=_LIBRARY)
def _fake_version(_: Tensor) -> Tensor:
    return torch.empty((), dtype=torch.int64, device="cpu")
