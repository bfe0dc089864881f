"""Renders the document as one HTML page and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from maskedconv.report.document import (
    Block,
    Command,
    Document,
    Figure,
    Picture,
    Scorecard,
    Table,
    Text,
)

STATUSES = {
    "reproduced": "reproduced",
    "partly": "partly reproduced",
    "not": "not reproduced",
    "undecided": "undecided",
    "not run": "not run",
}
_PANEL_WIDTH = 400  # pixels: two panels side by side on GitHub


def html(document: Document) -> str:
    """A self-contained HTML page, which loads no other file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("maskedconv.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    template = environment.get_template("report.html.j2")
    return template.render(document=document, statuses=STATUSES)


def _data_uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def markdown(document: Document) -> str:
    """The document in GitHub's Markdown; figures are links into ``figures/``."""
    parts = [f"**{_escaped(document.notice)}**", f"# {_escaped(document.title)}"]
    parts.append("\n".join(f"- {name}: {_escaped(value)}" for name, value in document.facts))
    for section in document.sections:
        parts.append(f"## {_escaped(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text():
            return _escaped(block.text)
        case Command():
            return f"{_escaped(block.purpose)}:\n\n    {block.text}"
        case Table():
            return f"{_escaped(block.caption)}\n\n{table(block)}"
        case Figure():
            pictures = "\n".join(_image(picture) for picture in block.pictures)
            return f"{_escaped(block.caption)}\n\n{pictures}"
        case Scorecard():
            return _scorecard(block)


def _image(picture: Picture) -> str:
    """HTML, because Markdown has no width, and panels would fill a line each."""
    alt = escape(picture.alt)
    return f'<img src="figures/{picture.name}.png" alt="{alt}" width="{_PANEL_WIDTH}">'


def table(block: Table) -> str:
    """A table in GitHub's Markdown, without its caption."""
    lines = [_row(block.columns)]
    lines.append(_row(["--:" if i in block.numeric else ":--" for i in range(len(block.columns))]))
    lines += [_row([_escaped(text) for text in row]) for row in block.rows]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _scorecard(scorecard: Scorecard) -> str:
    parts = []
    for verdict in scorecard.verdicts:
        claim = verdict.claim
        lines = [
            f"- **{STATUSES[verdict.status]}** ({verdict.summary}): {_escaped(claim.text)} "
            f"({claim.source})",
            f"  - Criterion: {_escaped(claim.criterion)}",
        ]
        lines += [
            f"  - {case.outcome}: {_escaped(case.name)}: {_escaped(case.evidence)}"
            for case in verdict.cases
        ]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _escaped(text: str) -> str:
    for sign in "\\|*_<>`[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")
