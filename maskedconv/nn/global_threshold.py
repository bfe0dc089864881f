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
from maskedconv.nn.seen_threshold import ThresholdGroup
from maskedconv.nn.wrappers import unwrapped
from maskedconv.ops.masked_weight import Threshold, find_threshold


def share_threshold(network: nn.Module) -> None:
    """Makes each call of ``network`` begin with :func:`update_thresholds`.

    Layers with ``threshold="layer"`` keep their own. Calling it twice changes nothing. A network
    within ``network`` that this was called for keeps a threshold of its own. A wrapper of
    torch.compile or of data parallel training stands for its network.
    """
    network = unwrapped(network)
    if not _shares(network):
        network.register_forward_pre_hook(_before_forward)
    for layers in _by_network(network):
        _join(layers)


def unshare_threshold(model: nn.Module) -> None:
    """Undoes :func:`share_threshold` for networks in ``model`` without such layers."""
    for network in model.modules():
        if _shares(network) and not _with_one(network.modules()):
            remove_hooks(network, lambda hook: hook is _before_forward)


@torch.no_grad()
def update_thresholds(network: nn.Module) -> None:
    """Computes the threshold of the present scores, for all layers with ``threshold="global"``.

    Exactly ``size - int((1 - k) * size)`` of the ``size`` weights of these layers together are
    kept. Ties between scores go to later layers, and to later weights within a layer.
    Networks within ``network`` that :func:`share_threshold` was called for have one each.

    Raises:
        ValueError: the layers differ in ``k``, or FSDP2 shards their scores.
    """
    for layers in _by_network(network):
        _update(layers)
        _join(layers)


@torch.no_grad()
def refresh_thresholds(model: nn.Module) -> None:
    """Computes the shared thresholds, for masks that are read outside of a forward pass.

    As :func:`update_thresholds`, of each network that :func:`threshold_groups` finds. A part of a
    network has no threshold of its own: its layers keep what they hold.

    Raises:
        ValueError: as :func:`update_thresholds`.
    """
    for layers, are_all in threshold_groups(model):
        if are_all:
            _update(layers)


def threshold_groups(model: nn.Module) -> list[tuple[list[ScoredLayer], bool]]:
    """The layers of ``model`` that have one threshold, network by network.

    A network is one that :func:`share_threshold` was called for, with its present layers. Other
    layers form a network if the last call of :func:`update_thresholds` was the same for all of
    them. Layers without a call form one, or a part of one if the model has layers with a call.

    Returns:
        The layers of each, and whether these are all layers of their network.
    """
    own, *within = _by_network(model)
    found = [(layers, True) for layers in within]
    if _shares(model):
        return [(own, True), *found]
    groups: dict[ThresholdGroup | None, list[ScoredLayer]] = {}
    for layer in own:
        groups.setdefault(layer.threshold_group, []).append(layer)
    for group, layers in groups.items():
        found.append((layers, len(layers) == (group.size if group else len(own))))
    return found


def _by_network(network: nn.Module) -> list[list[ScoredLayer]]:
    """The layers of ``network``, and of each one within it that shares a threshold of its own.

    Each layer is in the list of the innermost of them. Lists may be empty.
    """
    modules = list(network.modules())
    of = {id(network): _with_one(modules)}
    of |= {id(one): _with_one(one.modules()) for one in modules[1:] if _shares(one)}
    # The largest first, so that the last one to name a layer is the innermost.
    nested = sorted(of.items(), key=lambda item: -len(item[1]))
    innermost = {id(layer): key for key, layers in nested for layer in layers}
    return [[one for one in layers if innermost[id(one)] == key] for key, layers in of.items()]


def _with_one(modules: Iterable[nn.Module]) -> list[ScoredLayer]:
    """The layers that have one threshold with others."""
    layers = (one for one in modules if isinstance(one, ScoredLayer))
    return [one for one in layers if one.settings.threshold == "global"]


def _join(layers: Sequence[ScoredLayer]) -> None:
    """Lets ``layers`` know that they have one threshold."""
    group = ThresholdGroup(len(layers))
    for layer in layers:
        layer.threshold_group = group


def _shares(network: nn.Module) -> bool:
    return _before_forward in network._forward_pre_hooks.values()


def _update(layers: Sequence[ScoredLayer]) -> None:
    _check_gathered(layers)
    fractions = sorted({layer.settings.k for layer in layers})
    if len(fractions) > 1:
        raise ValueError(f"k is {fractions} in layers with one threshold; expected one value")
    for layer, threshold in zip(layers, shared_thresholds(layers), strict=True):
        layer.set_network_threshold(threshold)


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
