"""Learning which signs of a random network to use (Diffenderfer & Kailkhura 2021)."""

from __future__ import annotations

from dataclasses import dataclass

from maskedconv.methods.supermask import Supermask
from maskedconv.nn.biprop import BipropConv2d, BipropEmbedding, BipropLinear


@dataclass(frozen=True)
class Biprop(Supermask):
    """Multi-Prize Tickets: a supermask over binary weights, each layer with a factor.

    As :class:`maskedconv.methods.supermask`, with the weight ``sign(W) * alpha * mask``; see
    :class:`maskedconv.nn.BipropConv2d`. Scaling the random weights changes nothing but the
    magnitudes ``alpha``. A network with ``activation="sign"`` has binary activations too (MPT-1/1).

    Source: Diffenderfer & Kailkhura 2021 (arXiv 2103.09377).

    Args:
        k ... norm_learned: as of :class:`maskedconv.methods.supermask`.
    """

    weights: str = "kaiming"

    name = "biprop"
    layer = BipropConv2d
    linear_layer = BipropLinear
    embedding_layer = BipropEmbedding
