"""Results on disk: one JSON row per finished run, safe against kill -9 and parallel commands.

``results.jsonl`` is append-only: each row is one write under a lock. ``plan.json`` maps rows to
figures and is replaced atomically. Does not import torch.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskedconv.io import StoreError, append_line, remove_partial_files, replace_file
from maskedconv.runs import formats
from maskedconv.runs.formats import SCHEMA, read_row, write_row
from maskedconv.runs.row import Row
from maskedconv.schema import SchemaError, read_json

__all__ = ["Loaded", "Store", "StoreError", "is_final"]

Plan = dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    """The content of ``results.jsonl``: the valid row of each key, and the skipped lines."""

    rows: dict[str, Row] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def finished(self, key: str) -> Row | None:
        """The row of a run that is not to be repeated, or None."""
        row = self.rows.get(key)
        return row if row is not None and is_final(row) else None


def is_final(row: Row) -> bool:
    """Whether the run is not to be repeated.

    A diverged run would diverge again. Other failures (out of memory, a bug fixed since) are tried
    again.
    """
    return row["status"] == "done" or row.get("error_type") == "Diverged"


class Store:
    """The output folder of a command.

    Any number of processes may share a folder. Rows are appended under an exclusive lock, and
    :meth:`claim` prevents two processes from doing the same run.
    """

    def __init__(self, out: Path | str) -> None:
        self.out = Path(out)
        self.results = self.out / "results.jsonl"
        self.plan = self.out / "plan.json"
        self._lock_file = self.out / ".lock"
        self._claims = self.out / ".claims"

    def is_prepared(self) -> bool:
        """Whether :meth:`prepare` was called, and its folder is visible here."""
        return self._claims.is_dir()

    def prepare(self) -> None:
        """Creates the folder and checks that rows can be written; StoreError if not."""
        with _explained(self.out):
            self._claims.mkdir(parents=True, exist_ok=True)
            with self._locked(fcntl.LOCK_EX):
                os.close(os.open(self.results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666))
                # Replacing a file needs a new file, which a full disk refuses.
                tempfile.TemporaryFile(dir=self.out).close()
                remove_partial_files(self.plan)

    def load(self) -> Loaded:
        """Reads every row; ``problems`` names invalid lines, which stay in the file.

        If a key has several rows, the first finished one counts, else the last one.
        """
        if not self.results.exists():
            return Loaded()
        with _explained(self.out), self._locked(fcntl.LOCK_SH):
            lines = self.results.read_bytes().split(b"\n")
        loaded = Loaded()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = read_row(line, f"{self.results} line {number}")
            except SchemaError as error:
                loaded.problems.append(f"{error}; line skipped")
                continue
            old = loaded.rows.get(row["key"])
            if old is None or old["status"] != "done":
                loaded.rows[row["key"]] = row
        return loaded

    def append(self, row: Row) -> None:
        """Appends one row atomically and waits until it is on disk."""
        line = write_row(row)
        with _explained(self.out), self._locked(fcntl.LOCK_EX):
            append_line(self.results, line)

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Locks the run ``key`` for this process; yields False if another process has the lock.

        The kernel releases the lock when the process ends, even if it is killed.
        """
        with _explained(self.out):
            handle = os.open(self._claims / f"{key}.lock", os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    def read_plan(self) -> Plan | None:
        """The plan, or None if there is none; StoreError naming the place if it is invalid."""
        try:
            return read_json(self.plan.read_bytes(), formats.plan, self.plan)
        except FileNotFoundError:
            return None
        except SchemaError as error:
            raise StoreError(
                f"{error}; remove the file and run reproduce again, or use another folder"
            ) from error
        except OSError as error:
            raise StoreError(f"{self.plan} cannot be read: {error.strerror}") from error

    def change_plan(self, change: Callable[[Plan], Plan]) -> None:
        """Writes ``change(old)``, merged with experiments and data sets of ``old``.

        ``old`` is the plan on disk, or empty. No other process writes in between. The ``data_note``
        becomes the joined text of all ``data_notes``.
        """
        with _explained(self.out), self._locked(fcntl.LOCK_EX):
            old = self.read_plan() or {}
            plan = change(old)
            merged = {"schema": SCHEMA, **plan}
            for name in ("experiments", "data_notes"):
                merged[name] = {**old.get(name, {}), **plan.get(name, {})}
            merged["data_note"] = "; ".join(dict.fromkeys(merged["data_notes"].values()))
            text = json.dumps(merged, separators=(",", ":"), allow_nan=False) + "\n"
            replace_file(self.plan, text.encode())

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        reads = kind == fcntl.LOCK_SH
        if reads and not self._lock_file.exists():
            # No lock file, so no writer; the folder may be read-only.
            yield
            return
        handle = os.open(self._lock_file, os.O_RDONLY if reads else os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, kind)
            yield
        finally:
            os.close(handle)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        where = error.filename or out
        raise StoreError(f"the folder {out} cannot be used: {error.strerror} ({where})") from error
