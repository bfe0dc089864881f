"""The runs: trained weights, masks over own or shared weights, nothing learned."""

from __future__ import annotations

from typing import Any

from maskedconv.papers.shen2021.presets import IMAGES, KEPT, WORDS, ShenPreset
from maskedconv.runs.config import RunConfig
from maskedconv.runs.experiment import recipe_run, scaled_schedule
from maskedconv.runs.preset import Network
from maskedconv.training.config import ADAM_MOMENTUM

TRAINED, OWN, SHARED, UNTRAINED = "trained", "own", "shared", "untrained"
KINDS = {
    TRAINED: "trained weights",
    OWN: "masks, weights of each layer's own",
    SHARED: "masks, one layer of shared weights",
    UNTRAINED: "shared weights, nothing learned",
}
WEIGHTS_LR, SCORES_LR = 1e-3, 1e-2
# Adam changes a float32 score by at most about its learning rate: none of them by a single bit.
UNTRAINED_LR = 1e-30
# Schedule and weight decay of the ResNet-18 on CIFAR-10 in the code of Ramanujan et al. 2019 (arXiv
# 1911.13299), which has batches of 256.
_IMAGE_SCORES = {"weight_decay": 5e-4, "milestones": (), "schedule": "cosine"}


def runs(preset: ShenPreset) -> list[RunConfig]:
    """The Transformer's runs on number words, and the ResNet's on images."""
    return [
        run
        for seed in range(preset.seeds)
        for run in (*_translations(preset, seed), *_images(preset, seed))
    ]


def _translations(preset: ShenPreset, seed: int) -> list[RunConfig]:
    network = preset.transformer

    def run(network: Network, lr: float, **fields: Any) -> RunConfig:
        common = {
            "dataset": preset.words,
            "subset": None,
            "batch_size": preset.words_batch_size,
            "optimizer": "adam",
            "momentum": ADAM_MOMENTUM,
            "seed": seed,
        }
        return recipe_run(preset, WORDS, network, lr=lr, **{**common, **fields})

    return [
        run(network, WEIGHTS_LR),
        run(network, SCORES_LR, **_masks(KEPT, "network")),
        *(run(_folded(network), SCORES_LR, **_masks(k, "network")) for k in preset.kept),
        *(run(_folded(n), SCORES_LR, **_masks(KEPT, "network")) for n in preset.depths),
        run(_folded(network), UNTRAINED_LR, **_masks(KEPT, "network"), epochs=1),
    ]


def _images(preset: ShenPreset, seed: int) -> list[RunConfig]:
    from maskedconv.models import recipe

    network, masks = preset.resnet, {**_masks(KEPT, "signed_constant"), **_IMAGE_SCORES}
    full = recipe(network.model)
    epochs = preset.epochs_of(IMAGES, full.epochs)
    steps = scaled_schedule(full.epochs, full.milestones, full.warmup, epochs)
    return [
        recipe_run(preset, IMAGES, chosen, dataset=dataset, seed=seed, **fields)
        for dataset in preset.datasets
        for chosen, fields in ((network, steps), (network, masks), (_folded(network), masks))
    ]


def _masks(k: float, weights: str) -> dict[str, Any]:
    """The method: nothing is scaled, as the paper does not say that it is."""
    options = (("k", k), ("scale", weights != "network"), ("weights", weights))
    return {"method": "supermask", "method_options": options}


def _folded(network: Network) -> Network:
    return Network(network.model, network.lrs, (*network.options, ("fold", True)))


def kind(config: RunConfig) -> str:
    """The kind of a run, one of ``KINDS``."""
    if config.lr == UNTRAINED_LR:
        return UNTRAINED
    if config.method == "slice":
        return TRAINED
    return SHARED if dict(config.options).get("fold") else OWN


def kept(config: RunConfig) -> float:
    """Fraction of the weights that a mask keeps; 1 if there is none."""
    return float(dict(config.method_options).get("k", 1.0))


def translates(config: RunConfig) -> bool:
    """Whether the network is a Transformer."""
    return config.model.startswith("transformer")
