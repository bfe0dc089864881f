"""How many weights the masks of a trained network keep, layer by layer."""

from __future__ import annotations

from torch import nn

from maskedconv.nn.global_threshold import refresh_thresholds, shared_thresholds
from maskedconv.nn.scored import ScoredLayer, scored_layers
from maskedconv.runs.row import MaskRow


def describe_masks(model: nn.Module) -> list[MaskRow]:
    """A row for each supermask layer, in the model's order; empty if there is none.

    ``kept_globally`` is the number of weights that one threshold for the scores of all layers would
    keep in the layer. Under ``threshold="global"`` it equals ``kept``.
    """
    refresh_thresholds(model)
    layers = scored_layers(model)
    names = {id(module): name for name, module in model.named_modules()}
    return [
        _row(names[id(layer)], layer, int(layer.mask_of(threshold).sum()))
        for layer, threshold in zip(layers, shared_thresholds(layers), strict=True)
    ]


def _row(name: str, layer: ScoredLayer, kept_globally: int) -> MaskRow:
    return {
        "name": name,
        "size": layer.num_learned,
        "kept": layer.num_kept,
        "kept_globally": kept_globally,
    }
