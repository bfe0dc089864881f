"""The interface between a paper and the report and commands: presets, figures and tables.

Imports neither torch nor matplotlib, so that commands can list items without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from maskedconv.checks import check_choice
from maskedconv.report.claims import Claim
from maskedconv.report.document import Block, Table
from maskedconv.runs.config import RunConfig
from maskedconv.runs.experiment import Experiment, P
from maskedconv.runs.preset import Request

if TYPE_CHECKING:
    from maskedconv.report.results import SeedGroup


@dataclass(frozen=True)
class Item(Experiment[P]):
    """A figure or table of a paper: its runs, and its contents in the report.

    Attributes:
        build: draws the panels of the item into a folder and returns its section of the report.
        short_tables: creates the tables for a README, if the item has any.
        claims: claims of the paper that the runs of this item decide.
        printed_epochs: returns the epochs of a run in the paper; 0 if unknown.
        curves: whether the learning curves of its runs are drawn.
    """

    build: Callable[[list[SeedGroup], Path], list[Block]]
    short_tables: Callable[[list[SeedGroup]], list[Table]] | None = None
    claims: tuple[Claim, ...] = ()
    printed_epochs: Callable[[RunConfig], int] = lambda config: 0
    curves: bool = False


@dataclass(frozen=True)
class Source:
    """The citation of a paper."""

    authors: str
    title: str
    published: str


@dataclass(frozen=True)
class Paper(Generic[P]):
    """A paper whose experiments can be run.

    Attributes:
        source: citation.
        title: title of the report.
        presets: presets by name.
        items: figures and tables, in the paper's order.
        notes: paragraphs that explain the numbers.
        remarks: returns notes on the data of the items with the given ids, for the terminal.
        scorecard: ids of the items in the order of their claims in the scorecard.
    """

    source: Source
    title: str
    presets: Mapping[str, P]
    items: tuple[Item[P], ...]
    notes: tuple[str, ...] = ()
    remarks: Callable[[P, Sequence[str]], list[str]] = lambda preset, ids: []
    scorecard: tuple[str, ...] = ()

    def preset(self, request: Request) -> P:
        """The requested preset, with the options of the request.

        Raises:
            ValueError: there is no such preset; the message lists the existing ones.
        """
        check_choice("preset", request.preset, tuple(self.presets))
        return self.presets[request.preset].adapted(request)

    def claims(self) -> list[tuple[Item[P], Claim]]:
        """Every claim with its item, in the order of the scorecard."""
        order = {name: place for place, name in enumerate(self.scorecard)}
        items = sorted(self.items, key=lambda item: order.get(item.id, len(order)))
        return [(item, claim) for item in items for claim in item.claims]
