"""Reports of runs: one HTML page, the same as Markdown, a CSV, and every figure as PNG and SVG.

Reads only ``plan.json`` and ``results.jsonl``, so a report can be drawn again at any time. The two
functions here are the command's; the modules below them know no paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["readme_tables", "write"]


def write(out: Path | str) -> Path:
    """Writes the report of the folder ``out`` into it and returns the path of ``report.html``.

    Beside the page: ``report.md``, ``results.csv`` and ``figures/``. The same plan and rows give
    the same files.

    Raises:
        FileNotFoundError: ``out`` holds no ``plan.json``.
        StoreError: the folder or its plan cannot be read; names the place in the plan.
    """
    from maskedconv.papers import PAPERS
    from maskedconv.report.build import build
    from maskedconv.report.loading import load

    return build(load(Path(out), PAPERS), Path(out))


def readme_tables(out: Path | str, items: Sequence[str] = ()) -> str:
    """The results of the folder ``out`` as short Markdown tables, for a README.

    Args:
        items: ``fig1`` and so on; none means all of the plan.

    Raises:
        ValueError: an item that the plan does not have; or as :func:`write`.
    """
    from maskedconv.papers import PAPERS
    from maskedconv.report.loading import load
    from maskedconv.report.readme import tables

    return tables(load(Path(out), PAPERS), items)
