"""One threshold for the scores of all layers of a network.

Each layer then keeps as many weights as it has among the largest scores of the network, which may
be none (Diffenderfer & Kailkhura 2021, arXiv 2103.09377, public code).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from maskedconv import slices
from maskedconv.nn.distributed import is_sharded
from maskedconv.nn.scored import ScoredLayer
from maskedconv.ops.masked_weight import Threshold, find_threshold


def share_threshold(network: nn.Module) -> None:
    """Makes each call of ``network`` begin with :func:`update_thresholds`.

    Layers with ``threshold="layer"`` keep their own. Calling it twice changes nothing.
    """
    if _before_forward not in network._forward_pre_hooks.values():
        network.register_forward_pre_hook(_before_forward)


@torch.no_grad()
def update_thresholds(network: nn.Module) -> None:
    """Computes the threshold of the present scores, for all layers with ``threshold="global"``.

    Exactly ``size - int((1 - k) * size)`` of the ``size`` weights of these layers together are
    kept. Of equal scores, those of later layers are kept, and the later ones within a layer.

    Raises:
        ValueError: the layers differ in ``k``, or FSDP2 shards their scores.
    """
    layers = [one for one in scored_layers(network) if one.settings.threshold == "global"]
    _check_gathered(layers)
    fractions = sorted({layer.settings.k for layer in layers})
    if len(fractions) > 1:
        raise ValueError(f"k is {fractions} in layers with one threshold; expected one value")
    for layer, threshold in zip(layers, shared_thresholds(layers), strict=True):
        layer.set_network_threshold(threshold)


def scored_layers(network: nn.Module) -> list[ScoredLayer]:
    """The supermask layers of a network, each once."""
    return [module for module in network.modules() if isinstance(module, ScoredLayer)]


@torch.no_grad()
def shared_thresholds(layers: Sequence[ScoredLayer]) -> list[Threshold]:
    """For each layer, the threshold of the scores of all ``layers`` with the first one's ``k``."""
    if not layers:
        return []
    scores = torch.cat([layer.scores.detach().flatten() for layer in layers])
    value, first = find_threshold(
        scores, slices.kept_of_ratio(layers[0].kept_ratio, scores.numel())
    )
    ends = accumulate(layer.num_learned for layer in layers)
    # ``first`` is an index into the scores of all layers.
    return [
        Threshold(value, first - (end - layer.num_learned))
        for layer, end in zip(layers, ends, strict=True)
    ]


def _check_gathered(layers: Sequence[ScoredLayer]) -> None:
    """ValueError if this process holds only its shard of the scores."""
    if any(is_sharded(layer.scores) for layer in layers):
        raise ValueError(
            "threshold='global' needs the scores of all layers at once, but fully_shard(layer) "
            "shards them layer by layer; expected fully_shard(network) alone, a threshold of each "
            "layer, or DistributedDataParallel"
        )


def _before_forward(network: nn.Module, _: Any) -> None:
    update_thresholds(network)
