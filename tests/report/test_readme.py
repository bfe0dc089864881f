"""The README's tables equal the output of the commands for the committed results."""

from __future__ import annotations

from pathlib import Path

from bench import readme
from maskedconv import report

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RESULTS = "docs/results/cifar10-paper"
ITEMS = ("fig1", "fig2")


def between(text: str, name: str) -> str:
    """The part of ``text`` between the markers ``name``."""
    _, begin, rest = text.partition(f"<!-- {name}:begin -->\n")
    shown, end, _ = rest.partition(f"\n<!-- {name}:end -->")
    assert begin
    assert end
    return shown


def test_tables_of_speed():
    assert between(README.read_text(), "speed") == readme.tables()


def test_tables_of_results():
    text = README.read_text()
    assert f"--out {RESULTS} --readme {' '.join(ITEMS)}" in text
    assert between(text, "results") == report.readme_tables(ROOT / RESULTS, ITEMS).rstrip("\n")
