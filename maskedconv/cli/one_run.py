"""Executes the run of ``train``, in one process or as one of several."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from maskedconv.cli.batch_progress import EpochLine, watched
from maskedconv.cli.epoch_table import HEADER, EpochTable
from maskedconv.cli.options import INTERRUPTED, SOME_FAILED
from maskedconv.console import say
from maskedconv.runs import RunConfig, Store
from maskedconv.runs.row import Row
from maskedconv.runs.store import StoreError
from maskedconv.training.torchrun import Processes

if TYPE_CHECKING:
    from maskedconv.data import Task


@dataclass(frozen=True)
class OneRun:
    """A run, and how this process takes part in it.

    Attributes:
        dataset: with the share of this process.
        store: None: nothing is kept.
        checkpoint_seconds, graph: see :func:`maskedconv.runs.execute.execute`.
        processes: that train the network together.
    """

    config: RunConfig
    dataset: Task
    store: Store | None
    checkpoint_seconds: float
    graph: str
    processes: Processes

    def execute(self) -> Row:
        """Executes the run as the first process; returns its row.

        Raises:
            typer.Exit: interrupted, or it cannot go on; told on stderr.
        """
        from maskedconv.training.ranks import LostProcess

        try:
            return self._execute()
        except KeyboardInterrupt:
            say(f"interrupted: the run is not finished; {self._what_is_kept()}")
            raise typer.Exit(INTERRUPTED) from None
        except StoreError as error:
            say(f"error: {error}")
            raise typer.Exit(SOME_FAILED) from error
        except LostProcess as error:
            self.processes.tell_error(f"error: {error}; {self._what_is_kept()}")
            raise typer.Exit(SOME_FAILED) from error

    def _execute(self) -> Row:
        from maskedconv.runs.execute import execute
        from maskedconv.runs.sequential import run_all

        config, line = self.config, EpochLine()
        printer, dataset = EpochTable(line), watched(self.dataset, line)
        print(HEADER, flush=True)
        if self.store is None:
            self.processes.begin(config.key)
            return execute(
                config, dataset, lambda epoch: printer.epoch(config, epoch), graph=self.graph
            )

        def begun(config: RunConfig) -> Task:
            self.processes.begin(config.key)
            return dataset

        rows = run_all(
            [config],
            self.store,
            begun,
            printer,
            checkpoint_seconds=self.checkpoint_seconds,
            graph=self.graph,
        )
        return rows[config.key]

    def follow(self) -> None:
        """Takes part in the run that the first process executes, if it does.

        Raises:
            typer.Exit: the run failed or was interrupted. The first process tells it on stderr, or
                this one if the error is its own.
        """
        from maskedconv.training.history import Diverged

        try:
            if self.processes.follow(self.config.key):
                self._follow()
        except KeyboardInterrupt:
            # The first process is still writing.
            self.processes.wait_for_first()
            raise typer.Exit(INTERRUPTED) from None
        except Diverged:
            self.processes.wait_for_first()
            raise typer.Exit(SOME_FAILED) from None
        except Exception as error:
            self.processes.tell_error(f"error: {error}; {self._what_is_kept()}")
            raise typer.Exit(SOME_FAILED) from error

    def _follow(self) -> None:
        from maskedconv.runs.execute import follow
        from maskedconv.training.history import Diverged
        from maskedconv.training.interrupts import noted
        from maskedconv.training.ranks import LostProcess

        try:
            with nullcontext() if self.store is None else noted():
                follow(self.config, self.dataset, self.graph)
        except (Diverged, LostProcess):
            raise
        except Exception as error:
            text = str(error) or type(error).__name__
            raise RuntimeError(f"in process {self.processes.rank}: {text}") from error

    def _what_is_kept(self) -> str:
        from maskedconv.runs.checkpoints import has_checkpoint

        if self.store is None:
            return "nothing was saved, because --out FOLDER was not given"
        if self.processes.rank:
            # The folder may be on another machine.
            return "the same command resumes from the last checkpoint, if there is one"
        if not has_checkpoint(self.store.out, self.config):
            return "nothing was saved yet, and the same command restarts it"
        return "the same command resumes from its last checkpoint"
