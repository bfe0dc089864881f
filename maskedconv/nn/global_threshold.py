"""One threshold for the scores of all layers of a network.

Each layer then keeps as many weights as it has among the largest scores of the network, which may
be none (Diffenderfer & Kailkhura 2021, arXiv 2103.09377, public code).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from maskedconv import slices
from maskedconv.nn.distributed import is_sharded
from maskedconv.nn.own_hooks import remove_hooks
from maskedconv.nn.scored import ScoredLayer
from maskedconv.nn.wrappers import unwrapped
from maskedconv.ops.masked_weight import Threshold, find_threshold


def share_threshold(network: nn.Module) -> None:
    """Makes each call of ``network`` begin with :func:`update_thresholds`.

    Layers with ``threshold="layer"`` keep their own. Calling it twice changes nothing. A network
    within ``network`` that this was called for keeps a threshold of its own. What torch.compile or
    data parallel training wraps a network in stands for the network.
    """
    network = unwrapped(network)
    if not _shares(network):
        network.register_forward_pre_hook(_before_forward)
    for layer in _layers_with_one(network):
        layer.is_in_network = True


def unshare_threshold(model: nn.Module) -> None:
    """Undoes :func:`share_threshold` for networks in ``model`` without such layers."""
    for network in model.modules():
        if _shares(network) and not _layers_with_one(network):
            remove_hooks(network, lambda hook: hook is _before_forward)


@torch.no_grad()
def update_thresholds(network: nn.Module) -> None:
    """Computes the threshold of the present scores, for all layers with ``threshold="global"``.

    Exactly ``size - int((1 - k) * size)`` of the ``size`` weights of these layers together are
    kept. Of equal scores, those of later layers are kept, and the later ones within a layer.
    Networks within ``network`` that :func:`share_threshold` was called for have one each.

    Raises:
        ValueError: the layers differ in ``k``, or FSDP2 shards their scores.
    """
    for layers in _together([network, *filter(_shares, network.modules())]):
        _update(layers)


@torch.no_grad()
def refresh_thresholds(model: nn.Module) -> None:
    """Before masks are read outside of a forward pass: computes the thresholds that are shared.

    As :func:`update_thresholds`, of the networks in ``model`` that :func:`share_threshold` was
    called for. A part of such a network has no threshold of its own: its layers keep what they
    hold. Layers that no such network has are taken for one network, unless each holds the threshold
    of its present scores already.

    Raises:
        ValueError: as :func:`update_thresholds`.
    """
    together = layers_together(model)
    within = {id(layer) for layers in together for layer in layers}
    others = [one for one in _layers_with_one(model) if id(one) not in within]
    if not any(one.is_in_network for one in others) and not all(
        one.knows_threshold() for one in others
    ):
        together.append(others)
    for layers in together:
        _update(layers)


def layers_together(model: nn.Module) -> list[list[ScoredLayer]]:
    """The layers that have one threshold, of each network that :func:`share_threshold` made so."""
    return _together(filter(_shares, model.modules()))


def _together(networks: Iterable[nn.Module]) -> list[list[ScoredLayer]]:
    """The layers of each of ``networks``, without those of a later one that is within it."""
    of = {id(network): _layers_with_one(network) for network in networks}
    # The largest first, so that the last one to name a layer is the innermost.
    nested = sorted(of.items(), key=lambda item: -len(item[1]))
    innermost = {id(layer): key for key, layers in nested for layer in layers}
    found = [[one for one in layers if innermost[id(one)] == key] for key, layers in of.items()]
    return [layers for layers in found if layers]


def _layers_with_one(network: nn.Module) -> list[ScoredLayer]:
    return [one for one in scored_layers(network) if one.settings.threshold == "global"]


def _shares(network: nn.Module) -> bool:
    return _before_forward in network._forward_pre_hooks.values()


def _update(layers: Sequence[ScoredLayer]) -> None:
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
