"""Rosenfeld & Tsotsos 2018: networks that learn only part of their filters."""

from __future__ import annotations

from maskedconv.papers.rosenfeld2018 import (
    fig1,
    fig2,
    fig3,
    fig4,
    fig5,
    fig6,
    table1,
    table2,
    table3,
    table4,
)
from maskedconv.papers.rosenfeld2018.author_runs import LAST_CHANNELS, SPLIT_DENSENET
from maskedconv.papers.rosenfeld2018.presets import PRESETS, remarks
from maskedconv.report.item import Paper, Source

_NOTES = (
    "Rosenfeld and Tsotsos give the accuracy of the best epoch, too.",
    "Parameters are the learned ones (the paper's effective parameters). They include "
    "BatchNorm's affine parameters and the classifier, but no frozen filters.",
    "The paper's text learns the first filters of a layer, the authors' code the last ones. "
    "This package learns the first ones. The counts are the same. Filters are drawn independently, "
    "so that the first and the last ones are equal in distribution. The input channels of DenseNet "
    f"are not. {LAST_CHANNELS}",
    "All networks except AlexNet use He initialisation. In the authors' code, the split "
    "convolutions of WRN and VGG keep PyTorch's default, which is smaller by about √6. "
    f"{SPLIT_DENSENET} This may explain differences to their figures 1 and 2. The configuration "
    "below names the initialisation.",
    "The commands stored with the authors' code train every WRN with a dropout of 0.3. Here only "
    "figure 5's WRN-28-10 that learns everything has it.",
    "In the paper, AlexNet and VGG-19 without BatchNorm hardly train at the learning rate of 0.1. "
    "Runs at 0.01, the rate of the authors' reference runs, are shown if there are any.",
    "† marks results that are stored with the authors' code, but are not in the paper's text or "
    "tables.",
)

PAPER = Paper(
    source=Source(
        "Rosenfeld and Tsotsos",
        "Intriguing Properties of Randomly Weighted Networks: Generalizing While Learning Next to "
        "Nothing",
        "2018, arXiv 1802.00844",
    ),
    title="Learning part of each layer's filters",
    presets=PRESETS,
    items=tuple(
        module.ITEM
        for module in (fig1, fig2, fig3, fig4, fig5, fig6, table1, table2, table3, table4)
    ),
    notes=_NOTES,
    remarks=remarks,
    scorecard=("fig1", "fig2", "fig3", "table1", "fig4", "fig5", "table2", "table3", "table4"),
)
