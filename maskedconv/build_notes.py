"""Reads the notes of ``setup.py`` on parts that the installation omitted, and why."""

from __future__ import annotations

import json
from pathlib import Path

import maskedconv


def left_out(folder: str | None = None) -> dict[str, str]:
    """The reason of each part (``native``, ``cuda``) that was not built, or not wholly.

    Args:
        folder: of the package; by default the first of its folders that holds such notes.
    """
    for path in [folder] if folder else maskedconv.__path__:
        notes = Path(path) / "_build.json"
        if notes.exists():
            return dict(json.loads(notes.read_text()))
    return {}
