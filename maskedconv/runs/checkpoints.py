"""The checkpoint file of a run in its output folder."""

from __future__ import annotations

from pathlib import Path

from maskedconv.io import remove_partial_files
from maskedconv.runs.config import RunConfig


def checkpoint_path(folder: Path, config: RunConfig) -> Path:
    """The checkpoint file of a run in the output folder ``folder``."""
    return folder / ".checkpoints" / f"{config.key}.pt"


def has_checkpoint(folder: Path, config: RunConfig) -> bool:
    """Whether the run has a checkpoint."""
    return checkpoint_path(folder, config).exists()


def remove_checkpoint(folder: Path, config: RunConfig) -> None:
    """Removes the checkpoint of a run, if there is one.

    Call it after the row of the run is on disk. A process that dies in between leaves a file that
    is never read, because a finished run is not repeated.
    """
    path = checkpoint_path(folder, config)
    path.unlink(missing_ok=True)
    remove_partial_files(path)
