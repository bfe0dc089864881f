"""Finished measurements, a line of JSON each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maskedconv.io import append_line

Row = dict[str, Any]


class Rows:
    """The rows of a file. Each has the keys that identify it, and its results."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._rows: list[Row] = [json.loads(line) for line in lines]

    def find(self, **keys: Any) -> list[Row]:
        """The rows with these values, in the order of the file."""
        return [row for row in self._rows if keys.items() <= row.items()]

    def add(self, row: Row) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self._path, json.dumps(row).encode())
        self._rows.append(row)
