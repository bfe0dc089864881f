"""Progress on stderr: a line for each finished run, and a bar if stderr is a terminal."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from maskedconv.console import duration
from maskedconv.runs.config import RunConfig
from maskedconv.runs.row import Row
from maskedconv.runs.time_left import TimeLeft

if TYPE_CHECKING:
    from maskedconv.training.history import Epoch


class ConsoleObserver:
    """Context manager that shows the progress of the runs on the terminal.

    Args:
        configs: the runs.
        time_left: estimates the remaining time; None shows no time.
    """

    def __init__(self, configs: Collection[RunConfig], time_left: TimeLeft | None = None) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._time_left = time_left
        self._bar = Progress(
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:3.0f} %"),
            *([_TimeLeftColumn(time_left)] if time_left else []),
            # The text takes the rest of the line, so that the numbers stay readable.
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True)),
            expand=True,
            console=self._console,
            disable=not self._console.is_terminal,
        )
        # In epochs, which are closer to time than runs are.
        self._task = self._bar.add_task("", total=sum(config.all_epochs for config in configs))
        self._runs = len(configs)
        self._finished = 0
        # Epochs of each run in progress, by key.
        self._epochs_shown: dict[str, int] = {}
        self._wait_told = False

    def __enter__(self) -> ConsoleObserver:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def started(self, config: RunConfig) -> None:
        self._wait_told = False
        if self._time_left:
            self._time_left.started(config)
        # A run whose process died starts again.
        self._bar.advance(self._task, -self._epochs_shown.pop(config.key, 0))
        self._bar.update(self._task, description=config.label())

    def epoch(self, config: RunConfig, epoch: Epoch) -> None:
        self._epochs_shown[config.key] = self._epochs_shown.get(config.key, 0) + 1
        if self._time_left:
            self._time_left.epoch(config, epoch)
        text = f"{config.label()}: epoch {epoch.epoch}/{config.epochs}, {epoch.test_top1:.2f} %"
        self._bar.update(self._task, advance=1, description=text)

    def finished(self, config: RunConfig, row: Row) -> None:
        self._finished += 1
        if self._time_left:
            self._time_left.finished(config)
        # The remaining epochs of a run that diverged, or that another process finished.
        self._bar.advance(self._task, config.all_epochs - self._epochs_shown.pop(config.key, 0))
        width = len(str(self._runs))
        position = f"[{self._finished:{width}}/{self._runs}]"
        self._print(f"{position} {_outcome(row)}  {row['seconds']:7.1f} s  {config.label()}")

    def waiting(self, runs: int) -> None:
        if not self._wait_told:
            self._print(f"waiting for another process, which is doing {runs} of the runs")
        self._wait_told = True

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)


class _TimeLeftColumn(ProgressColumn):
    def __init__(self, time_left: TimeLeft) -> None:
        super().__init__()
        self._time_left = time_left

    def render(self, task: Task) -> Text:
        return Text(f"about {duration(self._time_left.seconds)} left ")


def _outcome(row: Row) -> str:
    if row["status"] != "done":
        return f"FAILED: {row['error']}"
    ensemble = "ensemble_top1" in row
    name, other = ("ensemble", row["ensemble_top1"]) if ensemble else ("best", row["best_top1"])
    top1 = f"{row['last_top1']:6.2f} % ({name} {other:6.2f})"
    return f"{top1}  {row['learned_parameters']:>10,} learned"
