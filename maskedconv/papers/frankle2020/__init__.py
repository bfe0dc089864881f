"""Frankle, Schwab & Morcos 2020: networks that learn only their BatchNorms."""

from __future__ import annotations

from maskedconv.papers.frankle2020 import bnonly
from maskedconv.papers.frankle2020.presets import PRESETS
from maskedconv.report.item import Paper, Source

_NOTES = (
    "BN only learns γ and β of every BatchNorm. All other values keep their random start, and so "
    "does the output layer, unless a setting names it. Running statistics always update.",
    "The control learns as many scalars as the network has γ and β, at positions drawn uniformly "
    "from the weights of all convolutions and the output layer. γ, β and biases are frozen.",
    "The authors' public code normalises CIFAR-10 with ImageNet's mean and deviation, and flips an "
    "image before it crops it. Here the mean and deviation are CIFAR-10's, and the crop is first.",
    "On ImageNet, the paper's abstract gives a top-5 of 32 % with BatchNorm alone. The authors' "
    "code raises the learning rate with every step of the first 5 epochs; here it rises once an "
    "epoch.",
    "The paper shows most accuracies in figures. Its text gives a few; the others beside ours come "
    "from secondary sources, which the tables name.",
)

PAPER = Paper(
    source=Source(
        "Frankle, Schwab and Morcos",
        "Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in CNNs",
        "2020, arXiv 2003.00152",
    ),
    title="Learning only the BatchNorms",
    presets=PRESETS,
    items=(bnonly.ITEM,),
    notes=_NOTES,
    scorecard=("bnonly",),
)
