"""Reports of runs: HTML, Markdown, CSV, and every figure as PNG and SVG.

A report is drawn from ``plan.json`` and ``results.jsonl`` only, so it can be drawn again at any
time. A folder of ``train`` has no plan: its report shows every run by itself. The two functions
here belong to the command; the modules do not depend on any paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["readme_tables", "write"]


def write(out: Path | str) -> Path:
    """Writes the report of the folder ``out`` into it and returns the path of ``report.html``.

    Also writes ``report.md``, ``results.csv`` and ``figures/``. The output is deterministic.

    Raises:
        FileNotFoundError: ``out`` holds neither a ``plan.json`` nor runs.
        StoreError: the folder or its plan cannot be read; names the place in the plan.
    """
    from maskedconv.papers import PAPERS
    from maskedconv.report.build import build
    from maskedconv.report.loading import load

    return build(load(Path(out), PAPERS), Path(out))


def readme_tables(out: Path | str, items: Sequence[str] = ()) -> str:
    """The results of the folder ``out`` as short Markdown tables, for a README.

    Args:
        items: ids such as ``fig1``; empty for all of the plan.

    Raises:
        ValueError: an item is not in the plan.
        FileNotFoundError: ``out`` holds no ``plan.json``.
        StoreError: as :func:`write`.
    """
    from maskedconv.papers import PAPERS
    from maskedconv.report.loading import load
    from maskedconv.report.readme import tables

    results = load(Path(out), PAPERS)
    if not results.papers:
        raise FileNotFoundError(f"{out} has no plan.json; expected a folder of reproduce")
    return tables(results, items)
