"""The checkpoint file of a run in its output folder."""

from __future__ import annotations

from pathlib import Path

from maskedconv.io import remove_partial_files
from maskedconv.runs.config import RunConfig


def checkpoint_path(folder: Path, config: RunConfig) -> Path:
    """The checkpoint file of a run in the output folder ``folder``."""
    return folder / ".checkpoints" / f"{config.key}.pt"


def has_checkpoint(folder: Path, config: RunConfig) -> bool:
    """Whether there is a checkpoint of the run."""
    return checkpoint_path(folder, config).exists()


def remove_checkpoint(folder: Path, config: RunConfig) -> None:
    """Removes the checkpoint of a run, if there is one.

    To be called when the row of the run is on disk: a process that dies in between leaves a file
    that nothing reads, as the run is not done again.
    """
    path = checkpoint_path(folder, config)
    path.unlink(missing_ok=True)
    remove_partial_files(path)
