"""One threshold for the scores of all layers of a network.

Each layer then keeps as many weights as it has among the largest scores of the network, which may
be none (Diffenderfer & Kailkhura 2021, arXiv 2103.09377, public code).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from maskedconv import slices
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
        ValueError: the layers differ in ``k``.
    """
    layers = [
        module
        for module in network.modules()
        if isinstance(module, ScoredLayer) and module.settings.threshold == "global"
    ]
    if not layers:
        return
    fractions = sorted({layer.settings.k for layer in layers})
    if len(fractions) > 1:
        raise ValueError(f"k is {fractions} in layers with one threshold; expected one value")
    scores = torch.cat([layer.scores.detach().flatten() for layer in layers])
    value, first = find_threshold(scores, slices.num_kept(fractions[0], scores.numel()))
    begin = 0
    for layer in layers:
        layer.set_network_threshold(Threshold(value, first - begin))
        begin += layer.num_learned


def _before_forward(network: nn.Module, _: Any) -> None:
    update_thresholds(network)
