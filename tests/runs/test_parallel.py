"""Parallel runs: the same results, dying processes, and dependencies between runs."""

from __future__ import annotations

import dataclasses
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import report_samples
from commands import SMALL, SMALL_RUNS, call, wait_until
from report_samples import preset_of

from maskedconv import data, reproduce
from maskedconv.data import Dataset
from maskedconv.papers import ITEMS
from maskedconv.runs import Store
from maskedconv.runs.parallel import Schedule, divide_cores, parse_parallel, run_parallel
from maskedconv.runs.workers import WorkerConfig, WorkerError

TWO = (*SMALL, "--parallel", "2", "--threads", "1")
RUNS = ITEMS["table1"].runs(preset_of("quick", epochs=1, subset=5))


def results(out):
    """The training results in the rows, without times."""
    rows = Store(out).load().rows
    for row in rows.values():
        for epoch in row["history"]:
            del epoch["seconds"]
    names = ("status", "history", "best_top1", "learned_parameters", "device", "data_note")
    return {key: {name: row[name] for name in names} for key, row in rows.items()}


def test_results_are_those_of_a_sequence(tmp_path):
    at_once = call(reproduce, *TWO, "--out", tmp_path / "two")
    in_turn = call(
        reproduce, *SMALL, "--parallel", "1", "--threads", "1", "--out", tmp_path / "one"
    )
    assert (at_once.exit_code, in_turn.exit_code) == (0, 0), at_once.output
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert len(results(tmp_path / "two")) == SMALL_RUNS
    assert at_once.stderr.count(f"/{SMALL_RUNS}]") == SMALL_RUNS


@dataclass(frozen=True, eq=False)
class Lethal(Dataset):
    """Kills the process that trains on it."""

    @property
    def num_classes(self):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, eq=False)
class Unloadable(Dataset):
    """Cannot be moved to the device."""

    def to(self, device):
        raise RuntimeError("no such device")


class Silent:
    """An observer that records its calls."""

    def __init__(self):
        self.waits = 0
        self.rows = []

    def started(self, config):
        pass

    def epoch(self, config, epoch):
        pass

    def finished(self, config, row):
        self.rows.append(row)

    def waiting(self, runs):
        self.waits += 1


def digits(kind=Dataset):
    dataset = data.load("digits", subset=5)
    return kind(**{f.name: getattr(dataset, f.name) for f in dataclasses.fields(Dataset)})


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    return store


def test_run_that_ends_its_process_each_time_fails(store):
    lethal, *others = RUNS[-3:]
    lethal = dataclasses.replace(lethal, subset=4)
    datasets = {("digits", 5): digits(), ("digits", 4): digits(Lethal)}
    observer = Silent()
    rows = run_parallel([lethal, *others], datasets, observer, WorkerConfig(store.out, "cpu", 1), 2)
    assert rows[lethal.key]["error"] == "its process ended twice, the last time by signal 9"
    assert [rows[run.key]["status"] for run in others] == ["done", "done"]
    assert {row["key"] for row in observer.rows} == set(rows) == set(store.load().rows)


def test_processes_that_cannot_start_are_told(store):
    datasets = {("digits", 5): digits(Unloadable)}
    with pytest.raises(WorkerError, match=r"do not start: one ended with exit status 1 \(.*paral"):
        run_parallel(RUNS, datasets, Silent(), WorkerConfig(store.out, "cpu", 1), 2)
    assert store.load().rows == {}


def test_images_that_cannot_be_handed_on_are_told(store, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/proc/nothing")
    with pytest.raises(WorkerError, match=r"cannot be written to /proc/nothing: .*TMPDIR"):
        run_parallel(
            RUNS, {("digits", 5): digits()}, Silent(), WorkerConfig(store.out, "cpu", 1), 2
        )


def test_run_of_another_runner_is_asked_for_again(store):
    config = RUNS[-1]
    observer, worker_config = Silent(), WorkerConfig(store.out, "cpu", 1)
    with store.claim(config.key) as mine, ThreadPoolExecutor() as threads:
        assert mine
        datasets = {("digits", 5): digits()}
        rows = threads.submit(run_parallel, [config], datasets, observer, worker_config, 2, 0.05)
        wait_until(lambda: observer.waits >= 2)
        store.append(report_samples.row(config, 50.0, elsewhere=True))
        assert rows.result(30)[config.key]["elsewhere"]


def test_dependent_runs_wait_for_their_start():
    start_, *ensembles = ITEMS["table4"].runs(preset_of("quick"))
    schedule = Schedule({run.key: run for run in [*ensembles, start_]}, poll_seconds=1)
    assert schedule.next() == start_
    assert schedule.next() is None
    assert not schedule.died(start_)
    assert schedule.next() == start_
    schedule.finish(start_, {"status": "done"})
    assert [schedule.next() for _ in ensembles] == ensembles
    assert schedule.next() is None


@pytest.mark.parametrize(
    ("parallel", "threads", "device", "cores", "expected"),
    [
        (None, 1, "cpu", 2, (2, 1)),
        (None, 1, "cpu", 64, (8, 1)),
        (None, 4, "cpu", 10, (2, 4)),
        (None, 4, "cpu", 2, (1, 4)),
        (None, None, "cpu", 64, (1, None)),
        (None, 1, "cuda", 64, (1, 1)),
        (3, None, "cpu", 8, (3, 2)),
        (3, None, "cpu", 2, (3, 1)),
        (3, 2, "cuda", 2, (3, 2)),
        (1, None, "cpu", 8, (1, None)),
    ],
)
def test_cores_are_shared_out(parallel, threads, device, cores, expected):
    assert divide_cores(parallel, threads, device, cores) == expected


def test_number_of_runs_at_once():
    assert (parse_parallel("auto"), parse_parallel("3")) == (None, 3)
    for text in ("0", "-1", "many", "1.5", ""):
        with pytest.raises(ValueError, match="parallel is"):
            parse_parallel(text)
