"""What the README shows is what the committed measurements say."""

from __future__ import annotations

from pathlib import Path

from bench import readme

README = Path(__file__).parent.parent / "README.md"


def between(text: str, name: str) -> str:
    """The part of ``text`` between the marks ``name``."""
    _, begin, rest = text.partition(f"<!-- {name}:begin -->\n")
    shown, end, _ = rest.partition(f"\n<!-- {name}:end -->")
    assert begin
    assert end
    return shown


def test_tables_of_speed():
    assert between(README.read_text(), "speed") == readme.tables()
