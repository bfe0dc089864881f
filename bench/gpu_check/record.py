"""Rows on disk: one JSON line each, synced at once. Does not import torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from maskedconv.io import append_line

Row = dict[str, Any]
# Statuses that count as an answer. A case that was cut off or timed out has none. A case that
# cannot run here may run on the machine that resumes the check.
ANSWERED = ("ok", "wrong", "error", "crashed")
NOT_HERE = "not here"
CUT_OFF = "cut off"  # by the end of its step or of the whole check
TIMED_OUT = "timed out"  # as one that hangs: by its own limit, or after its step's whole time
BAD = ("wrong", "error", "crashed", TIMED_OUT)
END = "end"  # key of the row that lists the missing cases
# Device and code of a row, so that a resumed check does not mix them.
SAME = ("device", "commit", "rehearsal")


class NotHere(Exception):
    """A case cannot run on this machine; the message gives the reason."""


class Record:
    """``results.jsonl``, to which any number of processes append."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Row) -> None:
        """Appends one line, behind a partial one of a killed process."""
        append_line(self.path, json.dumps(_plain(row), allow_nan=False).encode())

    def rows(self) -> list[Row]:
        """All complete rows; partial lines of killed processes are ignored."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("key"), str):
                found.append(row)
        return found

    def latest(self, about: Row) -> list[Row]:
        """The last row of each case for this device and this code.

        A row that was cut off says nothing, so that it replaces no other.
        """
        found: dict[str, Row] = {}
        for row in self.rows():
            same = row["key"] != END and all(row.get(name) == about[name] for name in SAME)
            if same and (row["key"] not in found or row.get("status") != CUT_OFF):
                found[row["key"]] = row
        return list(found.values())

    def answered(self, about: Row, *further: str) -> set[str]:
        """Keys of the answered cases, and of cases with a ``further`` status."""
        known = (*ANSWERED, *further)
        return {row["key"] for row in self.latest(about) if row.get("status") in known}


def _plain(value: Any) -> Any:
    """``value`` with NaN and infinities as text, because JSON has neither."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
