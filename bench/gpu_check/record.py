"""Rows on disk: one JSON line each, on the disk before anything else happens; free of torch."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# A case with such a row has an answer. One that was cut off has none yet, and what cannot be run
# here can perhaps be run where the check is resumed.
ANSWERED = ("ok", "wrong", "error", "crashed")
NOT_HERE = "not here"
BAD = ("wrong", "error", "crashed")
END = "end"  # key of the row that names what is missing
# What a row's device and code are, so that a resumed check mixes no two of them.
SAME = ("device", "commit", "rehearsal")


class NotHere(Exception):
    """A case cannot be run on this machine; the message says why."""


class Record:
    """``results.jsonl``, to which any number of processes append."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Row) -> None:
        """Adds one line; one that was cut short by a kill before is ended first."""
        text = json.dumps(_plain(row), allow_nan=False) + "\n"
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                text = "\n" + text
            os.write(handle, text.encode())
            os.fsync(handle)
        finally:
            os.close(handle)

    def rows(self) -> list[Row]:
        """Every whole row; half a line, as a kill leaves it, is passed over."""
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
        """The last row of each case for this device and this code."""
        same = (row for row in self.rows() if all(row.get(name) == about[name] for name in SAME))
        return list({row["key"]: row for row in same if row["key"] != END}.values())

    def answered(self, about: Row, *further: str) -> set[str]:
        """Keys of the cases that need not be run again, and of those with a ``further`` status."""
        known = (*ANSWERED, *further)
        return {row["key"] for row in self.latest(about) if row.get("status") in known}


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
