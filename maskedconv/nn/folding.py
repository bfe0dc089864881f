"""Layers that share one frozen weight and learn masks of their own.

Sources: Shen et al. 2021, *What's Hidden in a One-layer Randomly Weighted Transformer?* (arXiv
2109.03939): the layers of an encoder or a decoder share one weight per role. López García-Arias et
al. 2021, *Hidden-Fold Networks*: the blocks of a stage of a ResNet share theirs.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from maskedconv.nn.origin import origin_of, set_origin
from maskedconv.nn.remembered import remember_frozen
from maskedconv.nn.scored import ScoredLayer


def fold_(blocks: Iterable[nn.Module]) -> None:
    """Lets layers of the same name and shape in ``blocks`` share one frozen weight, in place.

    They share the first one's, which ``seed`` and origin then say of all: one tensor, which
    ``deepcopy``, ``.to()`` and ``.half()`` leave shared. The scores remain each layer's own. Other
    layers do not change.

    Raises:
        ValueError: the blocks have no layer with scores, or one with ``rerandomise_every``.
    """
    first: dict[tuple[object, ...], ScoredLayer] = {}
    for block in blocks:
        for name, layer in block.named_modules():
            if isinstance(layer, ScoredLayer):
                _check_frozen(layer)
                kind = name, layer.weight_shape, layer.dtype
                if (shared := first.setdefault(kind, layer)) is not layer:
                    layer.share_frozen(shared)
                    set_origin(layer, origin_of(shared))
                    remember_frozen(layer)
    if not first:
        raise ValueError(
            "fold is True; expected a method whose layers have a frozen weight and scores, such as "
            "supermask"
        )


def _check_frozen(layer: ScoredLayer) -> None:
    every = layer.settings.rerandomise_every
    if every:
        raise ValueError(
            f"rerandomise_every is {every}; expected 0 under fold, as another layer may keep what "
            "one leaves out"
        )
