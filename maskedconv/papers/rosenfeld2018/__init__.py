"""Rosenfeld & Tsotsos 2018: networks that learn only a part of their filters."""

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
from maskedconv.papers.rosenfeld2018.presets import PRESETS, adapt, remarks
from maskedconv.report.item import Paper, Source

_NOTES = (
    "Parameters are the learned ones (the paper's effective parameters); they include "
    "BatchNorm's affine parameters and the classifier, and never the zeroed or fixed filters.",
    "The paper's text learns the first filters of a bank, the authors' code the last ones; "
    "here it is the first. The counts are the same.",
    "All networks but AlexNet start from He's initialisation. In the authors' code the split "
    "convolutions of WRN and VGG missed that loop and kept PyTorch's default, about √6 "
    "smaller; differences to their figure 1 can come from there. The configuration below "
    "says which was used.",
    "AlexNet and VGG-19 without BatchNorm hardly train at the paper's learning rate of 0.1; "
    "0.01, the rate of the authors' reference runs, is shown where it was run.",
    "† marks results that are in neither the paper's text nor its tables but are stored with "
    "the authors' code.",
)

PAPER = Paper(
    source=Source(
        "Rosenfeld and Tsotsos",
        "Intriguing Properties of Randomly Weighted Networks: Generalizing While Learning Next to "
        "Nothing",
        "2018, arXiv 1802.00844",
    ),
    title="Learning a part of each filter bank",
    presets=PRESETS,
    adapt=adapt,
    items=tuple(
        module.ITEM
        for module in (fig1, fig2, fig3, fig4, fig5, fig6, table1, table2, table3, table4)
    ),
    notes=_NOTES,
    remarks=remarks,
    scorecard=("fig1", "fig2", "fig3", "table1", "fig4", "fig5", "table2", "table3", "table4"),
)
