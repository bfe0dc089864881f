"""Runs that are stopped right after a checkpoint."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from maskedconv.training.checkpoint import Checkpoint


@contextmanager
def stopped_after(monkeypatch, checkpoints):
    """The block is expected to end by KeyboardInterrupt, after so many checkpoints."""
    write, left = Checkpoint.write, iter(range(checkpoints - 1, -1, -1))

    def write_and_stop(self, training):
        write(self, training)
        if next(left) == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "write", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            yield
