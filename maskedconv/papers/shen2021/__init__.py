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
