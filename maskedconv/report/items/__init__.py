"""The paper's figures and tables as sections: ours, and beside it what can be compared.

One module for each item; its ``build`` draws panels into a folder and returns the section's blocks.
"""

from __future__ import annotations

from pathlib import Path

from maskedconv.report.document import Section
from maskedconv.report.items import (
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
from maskedconv.report.results import Results

ITEMS = {
    "fig1": ("Figure 1", fig1.build),
    "fig2": ("Figure 2", fig2.build),
    "fig3": ("Figure 3", fig3.build),
    "fig4": ("Figure 4", fig4.build),
    "fig5": ("Figure 5", fig5.build),
    "fig6": ("Figure 6", fig6.build),
    "table1": ("Table 1", table1.build),
    "table2": ("Table 2", table2.build),
    "table3": ("Table 3", table3.build),
    "table4": ("Table 4", table4.build),
}


def sections(results: Results, folder: Path) -> list[Section]:
    """A section for every planned experiment, in the paper's order; panels go to ``folder``."""
    return [
        Section(name, f"{heading}: {results.title(name)}", build(results.settings(name), folder))
        for name, (heading, build) in ITEMS.items()
        if name in results.experiments
    ]
