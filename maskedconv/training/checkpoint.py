"""Checkpoints of a training, from which it resumes after its process ended."""

from __future__ import annotations

import datetime
import hashlib
import io
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from maskedconv.io import StoreError, remove_partial_files, replacing
from maskedconv.training import interrupts
from maskedconv.training.history import Span

_DIGEST_BYTES = hashlib.sha256().digest_size
State = dict[str, Any]


class Checkpoint:
    """The file from which a run resumes. It is read at construction and replaced atomically.

    A file that is damaged or belongs to another configuration, version of torch, device type or
    dataset is reported on stderr, and the run restarts. One process at a time may use a path.

    Args:
        path: path of the file; its folder is created when the file is first written.
        identity: JSON values that the file must contain.
        every: seconds between two writes.
        later: names in ``identity`` that files of older versions lack, which are used anyhow.

    Attributes:
        context: tensors and JSON values of the caller, stored with the training state.
    """

    def __init__(
        self, path: Path, identity: State, every: float, later: Collection[str] = ()
    ) -> None:
        self._path, self._every, self._later = path, every, later
        self._identity = {**identity, "torch": str(torch.__version__)}
        remove_partial_files(path)
        found = self._read()
        self.context: State = found.get("context", {})
        self._training: State | None = found.get("training")
        self._seconds_before: float = found.get("seconds", 0.0)
        # Files of older versions have the seconds alone.
        self._spans_before: list[Span] | None = found.get("spans", None if found else [])
        self._date = datetime.datetime.now(datetime.UTC)
        self._started = self._written = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the run in seconds; includes earlier processes up to their last write."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def spans(self) -> list[Span] | None:
        """The parts of ``seconds`` by process, this one last; None if the file does not say."""
        if self._spans_before is None:
            return None
        seconds = round(time.monotonic() - self._started, 3)
        started = self._date.isoformat(timespec="seconds")
        return [*self._spans_before, {"started": started, "seconds": seconds}]

    @property
    def stored_epochs(self) -> int:
        """Number of finished epochs in the training state that :meth:`take` will return."""
        return len(self._training["history"]) if self._training else 0

    def take(self) -> State | None:
        """Returns the stored training state, on the CPU, at the first call, then None."""
        taken, self._training = self._training, None
        return taken

    def due(self) -> bool:
        """Whether it is time to write, or a stop was requested."""
        return interrupts.requested() or time.monotonic() - self._written >= self._every

    def write(self, training: State) -> None:
        """Replaces the file atomically.

        Raises:
            StoreError: it cannot be written.
            KeyboardInterrupt: it is written, and a stop was requested.
        """
        buffer = io.BytesIO()
        times = {"seconds": self.seconds, "spans": self.spans}
        state = {"context": self.context, "training": training, **times}
        torch.save({"identity": self._identity, **state}, buffer)
        content = buffer.getbuffer()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as file:
                file.write(hashlib.sha256(content).digest())
                file.write(content)
        except OSError as error:
            raise StoreError(
                f"the checkpoint {self._path} cannot be written: {error.strerror}"
            ) from error
        self._written = time.monotonic()
        if interrupts.requested():
            raise KeyboardInterrupt

    def _read(self) -> State:
        try:
            content = memoryview(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            return self._refuse(f"cannot be read ({error.strerror})")
        digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            return self._refuse("is damaged")
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            identity = state["identity"]
        # An undamaged file from a version of torch or of this package that stored something else.
        except Exception as error:
            return self._refuse(f"cannot be read by this version ({type(error).__name__})")
        for name, value in self._identity.items():
            if identity.get(name) != value and (name in identity or name not in self._later):
                return self._refuse(f"is of another {name} ({identity.get(name)!r}, not {value!r})")
        return state

    def _refuse(self, why: str) -> State:
        print(f"warning: {self._path} {why}; the run restarts", file=sys.stderr)
        return {}
