"""Reads the notes that ``setup.py`` writes about omitted parts and the reasons."""

from __future__ import annotations

import json
from pathlib import Path

import maskedconv


def left_out(folder: str | None = None) -> dict[str, str]:
    """The reason for each part (``native``, ``cuda``) that was not built, or only in part.

    Args:
        folder: a folder of the package; by default the first one that contains such notes.
    """
    for path in [folder] if folder else maskedconv.__path__:
        notes = Path(path) / "_build.json"
        if notes.exists():
            return dict(json.loads(notes.read_text()))
    return {}
