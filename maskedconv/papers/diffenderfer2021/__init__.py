"""Diffenderfer & Kailkhura 2021: binary subnetworks of random networks, found by biprop."""

from __future__ import annotations

from maskedconv.papers.diffenderfer2021 import biprop
from maskedconv.papers.diffenderfer2021.presets import PRESETS
from maskedconv.report.item import Paper, Source

_NOTES = (
    "Multi-Prize Tickets (biprop): the kept weights are the signs of the random ones, times one "
    "factor for each layer. MPT-1/32 has binary weights, MPT-1/1 binary activations too.",
    "The paper prints 2.6 million parameters for ResNet-18 that keeps 20 %. A fifth of this "
    "network's 11,164,352 weights are 2.23 million, so the printed counts contradict the network.",
    "The public code divides CIFAR-10's pixels by deviations of 0.247, 0.243 and 0.262. Here they "
    "are 0.2023, 0.1994 and 0.2010, as in the paper of Rosenfeld and Tsotsos.",
    "The printed VGG-Small with binary activations is 1.25 times as wide. Training follows the "
    "public code: 100 epochs.",
)

PAPER = Paper(
    source=Source(
        "Diffenderfer and Kailkhura",
        "Multi-Prize Lottery Ticket Hypothesis: Finding Accurate Binary Neural Networks by Pruning "
        "a Randomly Weighted Network",
        "2021, arXiv 2103.09377",
    ),
    title="Binary subnetworks of random networks",
    presets=PRESETS,
    items=(biprop.ITEM,),
    notes=_NOTES,
)
