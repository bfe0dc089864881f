"""Ramanujan et al. 2019: accurate subnetworks of random networks, found by edge-popup."""

from __future__ import annotations

from maskedconv.papers.ramanujan2019 import supermask
from maskedconv.papers.ramanujan2019.presets import PRESETS
from maskedconv.report.item import Paper, Source

_NOTES = (
    "Supermasks (edge-popup): no weight is ever learned, only a score for each weight. The number "
    "of parameters counts the scores; the number of kept weights is given beside it.",
    "The paper's text multiplies the weights by 1/√k. The authors' code multiplies the fan-in by "
    "1 − prune_rate, and prune_rate is the fraction that is kept, which agrees only for k = 0.5. "
    "This package follows the text.",
    "The authors' code divides CIFAR-10's pixels by deviations of 0.247, 0.243 and 0.262. Here "
    "they are 0.2023, 0.1994 and 0.2010, as in the paper of Rosenfeld and Tsotsos.",
    "On ImageNet, the paper also smooths the labels by 0.1. Here they are not smoothed.",
    "The authors' code ranks weights by |score|, and its gradient is that of |score|. So does this "
    "package.",
)

PAPER = Paper(
    source=Source(
        "Ramanujan, Wortsman, Kembhavi, Farhadi and Rastegari",
        "What's Hidden in a Randomly Weighted Neural Network?",
        "2019, arXiv 1911.13299",
    ),
    title="Supermasks of random networks",
    presets=PRESETS,
    items=(supermask.ITEM,),
    notes=_NOTES,
)
