"""The presets of the experiment: quick, short, and paper. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from maskedconv.runs.preset import Network, Preset


@dataclass(frozen=True, kw_only=True)
class ShenPreset(Preset):
    """The networks and data of the experiment.

    Attributes:
        words: the translation task; ``datasets`` are the images of the ResNet.
        transformer, resnet: the networks.
        depths: Transformers of other depths, as shared tickets alone.
        kept: fractions of the weights that the shared ticket keeps; ``KEPT`` is among them.
        words_batch_size: batch size of the Transformer.
    """

    words: str
    transformer: Network
    resnet: Network
    depths: tuple[Network, ...] = ()
    kept: tuple[float, ...] = (0.3, 0.5, 0.7)
    words_batch_size: int = 128


# Epochs of the translation and of the images.
WORDS, IMAGES = "onelayer", "onelayer-images"
# The fraction of most of the paper's results.
KEPT = 0.5
_QUICK = ShenPreset(
    name="quick",
    datasets=("digits",),
    words="number-words-1000",
    transformer=Network("transformer_2_64"),
    resnet=Network("resnet_14"),
    epochs=MappingProxyType({WORDS: 10, IMAGES: 10}),
    batch_size=64,
    # Such small layers gain nothing from a second thread.
    threads=1,
)
_SHORT = replace(
    _QUICK,
    name="short",
    datasets=("cifar10",),
    words="number-words-10000",
    transformer=Network("transformer_2_128"),
    resnet=Network("resnet_20"),
    depths=(Network("transformer_4_128"),),
    epochs=MappingProxyType({WORDS: 10, IMAGES: 10}),
    batch_size=128,
    subset=500,
    threads=None,
)
# The depth of the paper's Transformers; they are wider, for a vocabulary of sentences.
_PAPER = replace(
    _SHORT,
    name="paper",
    datasets=("cifar10", "cifar100"),
    transformer=Network("transformer_6_256"),
    resnet=Network("resnet_56"),
    depths=tuple(Network(f"transformer_{blocks}_256") for blocks in (1, 2, 4)),
    kept=(0.1, 0.3, 0.5, 0.7, 0.9),
    epochs=MappingProxyType({WORDS: 40, IMAGES: 160}),
    subset=None,
)
PRESETS: Mapping[str, ShenPreset] = MappingProxyType(
    {preset.name: preset for preset in (_QUICK, _SHORT, _PAPER)}
)
