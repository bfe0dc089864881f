"""Worker processes, which execute one run at a time and report its progress."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from maskedconv.console import say
from maskedconv.runs.config import RunConfig
from maskedconv.runs.images import DataKey, data_key
from maskedconv.runs.sequential import CHECKPOINT_SECONDS, attempt
from maskedconv.runs.store import Store, StoreError
from maskedconv.training import interrupts
from maskedconv.training.device import open_device

if TYPE_CHECKING:
    from maskedconv.data import Task
    from maskedconv.training.history import Epoch


class WorkerError(RuntimeError):
    """The worker processes cannot be used; the message gives the reason."""


@dataclass(frozen=True)
class WorkerConfig:
    """The options of a worker: output folder, device, threads, seconds between checkpoints, and
    ``graph`` of :func:`maskedconv.training.loop.train`.
    """

    out: Path
    device: str
    threads: int | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    graph: str = "off"


@dataclass(frozen=True)
class Workers:
    """The planned worker processes: their number, device, and CPU threads of each."""

    count: int
    device: str
    threads: int | None


class Pool:
    """Context manager for worker processes, which are started on demand.

    Attributes:
        busy: the current run of each busy process, by connection.
    """

    def __init__(self, worker_config: WorkerConfig, images: Path) -> None:
        self.busy: dict[Connection, RunConfig] = {}
        self._config = worker_config
        self._images = images
        self._processes: dict[Connection, SpawnProcess] = {}
        self._ready: set[Connection] = set()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self.busy:
            say(interrupts.SAVING)
        try:
            # Requested to stop first: a busy process with a closed connection ends unsaved.
            for process in self._processes.values():
                process.terminate()
            for connection in self._processes:
                connection.close()
            for process in self._processes.values():
                process.join()
        except KeyboardInterrupt:
            for process in self._processes.values():
                process.kill()
            raise

    def give(self, config: RunConfig) -> None:
        """Gives the run to an idle process or a new one."""
        idle = (connection for connection in self._processes if connection not in self.busy)
        connection = next(idle, None) or self._start()
        self.busy[connection] = config
        # ``events`` reports a process that died while it was idle.
        with suppress(OSError):
            connection.send(config)

    def events(self, timeout: float | None) -> Iterator[tuple[RunConfig, Any]]:
        """Waits up to ``timeout`` seconds (None: no limit) for events of the busy processes.

        Yields:
            The run, and ("started",), ("epoch", epoch), ("row", row), ("store", message),
            ("died", how) or, if the process died at startup, ("unstarted", how).
        """
        for connection in wait(list(self.busy), timeout):
            assert isinstance(connection, Connection)
            try:
                event = connection.recv()
            except (EOFError, OSError):
                yield self.busy.pop(connection), self._end_of(connection)
                continue
            if event[0] == "ready":
                self._ready.add(connection)
            else:
                done = event[0] == "row"
                yield self.busy.pop(connection) if done else self.busy[connection], event

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self._config, self._images), daemon=True
        )
        # The resource tracker would unblock the signal if it started with the first process.
        resource_tracker.ensure_running()
        with _interrupts_blocked():
            process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def _end_of(self, connection: Connection) -> tuple[str, str]:
        process = self._processes.pop(connection)
        connection.close()
        process.join()
        code = process.exitcode or 0
        kind = "died" if connection in self._ready else "unstarted"
        return kind, f"by signal {-code}" if code < 0 else f"with exit status {code}"


@contextmanager
def saved(datasets: dict[DataKey, Task]) -> Iterator[Path]:
    """Context with a file of the images, which all processes map into memory as one copy.

    Raises:
        WorkerError: the file cannot be written.
    """
    import torch

    try:
        file = tempfile.NamedTemporaryFile(prefix="maskedconv-images-")  # noqa: SIM115
        torch.save(datasets, file)
        file.flush()
    # torch's writer raises RuntimeError for a full disk.
    except (OSError, RuntimeError) as error:
        raise WorkerError(
            f"the images for parallel runs cannot be written to {tempfile.gettempdir()}: "
            f"{error}; TMPDIR=... names another folder, --parallel 1 needs none"
        ) from error
    with file:
        yield Path(file.name)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Context in which started processes ignore Ctrl-C, which the scheduler handles."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, worker_config: WorkerConfig, images: Path) -> None:
    """Executes the runs that arrive over ``connection`` until it is closed."""
    import torch

    device = open_device(worker_config.device, worker_config.threads)
    loaded = torch.load(images, mmap=True, weights_only=False)
    datasets = {key: dataset.to(device) for key, dataset in loaded.items()}
    store, teller = Store(worker_config.out), _Teller(connection)
    teller.tell("ready")
    while True:
        try:
            config = connection.recv()
        except (EOFError, OSError):
            return
        try:
            row = attempt(
                config,
                store,
                lambda config: datasets[data_key(config)],
                teller,
                worker_config.checkpoint_seconds,
                worker_config.graph,
            )
        except StoreError as error:
            teller.tell("store", str(error))
            return
        except KeyboardInterrupt:
            return
        teller.tell("row", row)


class _Teller:
    """Reports the progress of a run to the scheduler."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def started(self, config: RunConfig) -> None:
        self.tell("started")

    def epoch(self, config: RunConfig, epoch: Epoch) -> None:
        self.tell("epoch", epoch)

    def tell(self, *event: Any) -> None:
        try:
            self._connection.send(event)
        except OSError:
            # The scheduler is gone. The run itself did not fail.
            if not interrupts.requested():
                os._exit(1)
