"""The report as data: sections of paragraphs, tables and figures, without a layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskedconv.report.claims import Verdict
    from maskedconv.report.item import Source


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Command:
    """A shell command and its purpose."""

    text: str
    purpose: str
    kind: str = "command"


@dataclass(frozen=True)
class Table:
    """A table; ``numeric`` contains the indices of numeric columns.

    ``grouped``: consecutive rows with the same first cell form a group.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    grouped: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Picture:
    """One drawn panel, stored as ``figures/<name>.svg`` and ``.png``."""

    name: str
    alt: str
    svg: bytes


@dataclass(frozen=True)
class Figure:
    """Panels side by side under one caption."""

    caption: str
    pictures: Sequence[Picture]
    kind: str = "figure"


@dataclass(frozen=True)
class Scorecard:
    """The verdict on every claim."""

    verdicts: Sequence[Verdict]
    kind: str = "scorecard"

    def count(self, status: str) -> int:
        return sum(verdict.status == status for verdict in self.verdicts)


@dataclass(frozen=True)
class Section:
    """A part of the report under its own heading."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


@dataclass(frozen=True)
class Document:
    """A complete report; ``notice`` is its first line, ``sources`` are the papers."""

    title: str
    notice: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    sources: Sequence[Source] = ()


Block = Text | Command | Table | Figure | Scorecard
