"""The table that ``train`` prints: a line for each epoch, and the progress within one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from maskedconv.cli.batch_progress import EpochLine
from maskedconv.console import say
from maskedconv.runs.config import RunConfig
from maskedconv.runs.row import Row

if TYPE_CHECKING:
    from maskedconv.training.history import Epoch

HEADER = "epoch       lr  train loss  top-1 %  test loss  top-1 %       s"


class EpochTable:
    """Prints each epoch on stdout, including the epochs of a run that is already in the folder.

    Args:
        line: the line of the epoch in progress, which gives way to that of the finished epoch.
    """

    def __init__(self, line: EpochLine) -> None:
        self._started = self._wait_told = False
        self._line = line

    def started(self, config: RunConfig) -> None:
        self._started = True
        say(config.label())

    def epoch(self, config: RunConfig, epoch: Epoch) -> None:
        self._print(vars(epoch))

    def finished(self, config: RunConfig, row: Row) -> None:
        self._line.clear()
        if not self._started:
            say("this run is already in the folder; its stored epochs:")
            for epoch in row["history"]:
                self._print(epoch)

    def waiting(self, runs: int) -> None:
        if not self._wait_told:
            say("another process is doing this run; waiting for it")
        self._wait_told = True

    def _print(self, epoch: Mapping[str, Any]) -> None:
        self._line.clear()
        print(
            f"{epoch['epoch']:5}{epoch['lr']:9.5f}{epoch['train_loss']:12.4f}"
            f"{epoch['train_top1']:9.2f}{epoch['test_loss']:11.4f}{epoch['test_top1']:9.2f}"
            f"{epoch['seconds']:8.1f}",
            flush=True,
        )
