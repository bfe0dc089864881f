"""The state of a training on disk, from which it resumes after its process ended."""

from __future__ import annotations

import hashlib
import io
import sys
import time
from pathlib import Path
from typing import Any

import torch

from maskedconv.io import StoreError, remove_partial_files, replacing
from maskedconv.training import interrupts

_DIGEST_BYTES = hashlib.sha256().digest_size
State = dict[str, Any]


class Checkpoint:
    """The file from which a run goes on, read when this is made and replaced whole ever after.

    A file that is damaged, or of another configuration, version of torch, kind of device or data,
    is reported on stderr and the run starts anew. One process at a time uses a path.

    Args:
        path: of the file; its folder is made when the file is first written.
        identity: JSON values that the file must have been written with.
        every: seconds from one writing to the next.

    Attributes:
        context: tensors and JSON values of the caller's own, stored with what the training stores.
    """

    def __init__(self, path: Path, identity: State, every: float) -> None:
        self._path, self._every = path, every
        self._identity = {**identity, "torch": str(torch.__version__)}
        remove_partial_files(path)
        found = self._read()
        self.context: State = found.get("context", {})
        self._training: State | None = found.get("training")
        self._seconds_before: float = found.get("seconds", 0.0)
        self._started = self._written = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the run, that of earlier processes included up to their last writing."""
        return self._seconds_before + time.monotonic() - self._started

    def take(self) -> State | None:
        """Returns the stored training state, on the CPU, at the first call; None later."""
        taken, self._training = self._training, None
        return taken

    def due(self) -> bool:
        """Whether it is time to write, or somebody asks to stop."""
        return interrupts.requested() or time.monotonic() - self._written >= self._every

    def write(self, training: State) -> None:
        """Replaces the file, whole or not at all.

        Raises:
            StoreError: it cannot be written.
            KeyboardInterrupt: it is written, and somebody asks to stop.
        """
        buffer = io.BytesIO()
        state = {"context": self.context, "training": training, "seconds": self.seconds}
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
        # Whole, but of a version of torch or of this package that stored something else.
        except Exception as error:
            return self._refuse(f"cannot be read by this version ({type(error).__name__})")
        for name, value in self._identity.items():
            if identity.get(name) != value:
                return self._refuse(f"is of another {name} ({identity.get(name)!r}, not {value!r})")
        return state

    def _refuse(self, why: str) -> State:
        print(f"warning: {self._path} {why}; the run starts anew", file=sys.stderr)
        return {}
