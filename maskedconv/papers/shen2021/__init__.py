"""Shen et al. 2021: one layer of random weights for all layers of a Transformer."""

from __future__ import annotations

from maskedconv.papers.shen2021 import onelayer
from maskedconv.papers.shen2021.presets import PRESETS
from maskedconv.report.item import Paper, Source

_NOTES = (
    "The one-layer tickets translate number words, as no corpus of sentences is part of this "
    "package. The numbers in words are those of the Unicode CLDR. A fifth of the numbers from 100 "
    "on is for testing.",
    "The one-layer Transformer has no biases, no affine parameters in LayerNorm, and Xavier and "
    "Kaiming initialisation as in the paper; the trained one is the same network. Scores learn at "
    "another rate than weights.",
    "The ResNet's masks learn on a cosine schedule with a weight decay of 5e-4. These are the "
    "settings of a ResNet-18 in the code of Ramanujan et al. (2019), whose batches are of 256 "
    "images; the configuration below names ours. The ResNet's trained weights follow its own "
    "recipe: steps after half and three quarters of the epochs, and a weight decay of 1e-4. So the "
    "two differ in their training as well.",
)

PAPER = Paper(
    source=Source(
        "Shen, Yao, Kiela, Keutzer and Mahoney",
        "What's Hidden in a One-layer Randomly Weighted Transformer?",
        "EMNLP 2021, arXiv 2109.03939",
    ),
    title="One-layer lottery tickets",
    presets=PRESETS,
    items=(onelayer.ITEM,),
    notes=_NOTES,
)
