"""Iterative re-randomisation: weights that the masks leave out are drawn anew during training.

Source: Chijiwa et al. 2021, *Pruning Randomly Initialized Neural Networks with Iterative
Randomization* (arXiv 2106.09269), and its public code.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from maskedconv.checks import check_int
from maskedconv.nn.distributed import is_sharded
from maskedconv.nn.global_threshold import update_thresholds
from maskedconv.nn.scored import ScoredLayer, scored_layers


def rerandomises(network: nn.Module) -> bool:
    """Whether a layer of ``network`` has weights that are drawn anew during training."""
    return any(layer.settings.rerandomise_every for layer in scored_layers(network))


@torch.no_grad()
def rerandomise_(network: nn.Module, step: int, seed: int) -> None:
    """Draws weights anew that the masks leave out, if it is time to; to be called before each step.

    It is time for a layer if ``step`` is a multiple of its ``rerandomise_every``. Each weight that
    its mask leaves out is then replaced with the probability ``rerandomise_fraction``, by a value
    of the distribution of its ``weights``. Weights that the mask keeps, and the scores, do not
    change. The new values depend on ``seed``, ``step`` and the layer's place in the network alone,
    and are drawn on the CPU. Layers whose scores are not learned are left alone.

    Args:
        network: other layers in it do not change.
        step: of the training, counted from 1.
        seed: of the training.

    Raises:
        TypeError, ValueError: ``step`` or ``seed`` is not such a number; layers share a frozen
            weight, or use a held mask.
    """
    check_int("step", step, 1)
    check_int("seed", seed, 0)
    chosen = [(i, layer) for i, layer in enumerate(scored_layers(network)) if _is_due(layer, step)]
    if not chosen:
        return
    _check(network, [layer for _, layer in chosen])
    update_thresholds(network)
    for place, layer in chosen:
        _redraw_(layer, _generator(seed, step, place))


def _is_due(layer: ScoredLayer, step: int) -> bool:
    every = layer.settings.rerandomise_every
    return every > 0 and step % every == 0 and layer.scores.requires_grad


def _check(network: nn.Module, chosen: list[ScoredLayer]) -> None:
    if any(is_sharded(layer.scores) for layer in chosen):
        raise ValueError(
            f"rerandomise_every is {chosen[0].settings.rerandomise_every}; expected 0 under FSDP2, "
            "as no process holds the whole mask between two steps"
        )
    users = [id(layer.frozen) for layer in scored_layers(network)]
    for layer in chosen:
        if users.count(id(layer.frozen)) > 1:
            raise ValueError(
                f"rerandomise_every is {layer.settings.rerandomise_every}; expected 0 for layers "
                "that share a frozen weight, as another layer may keep what one leaves out"
            )
        if layer.held_mask is not None:
            raise ValueError(
                "a layer uses a held mask; expected its scores to be used, as other masks may keep "
                "what this one leaves out"
            )


def _redraw_(layer: ScoredLayer, generator: torch.Generator) -> None:
    chance = torch.rand(layer.weight_shape, generator=generator, device="cpu")
    drawn = layer.draw_weight(generator).to(layer.frozen.device)
    chosen = (chance < layer.settings.rerandomise_fraction).to(layer.frozen.device)
    replaced = torch.where(chosen & ~layer.mask, drawn, layer.frozen)
    layer.frozen.copy_(replaced)


def _generator(seed: int, step: int, place: int) -> torch.Generator:
    # A hash, so that no two triples give related streams, nor the stream of the initial weights.
    digest = hashlib.sha256(f"{seed} {step} {place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
