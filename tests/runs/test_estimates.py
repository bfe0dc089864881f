"""Estimates before the runs and the remaining time during them, with a simulated clock."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import call
from report_samples import config

from maskedconv import data, reproduce
from maskedconv.cli import running
from maskedconv.runs import estimate as estimating
from maskedconv.runs import timing
from maskedconv.runs.engine import Engine
from maskedconv.runs.estimate import coarse_estimate, estimate, total_seconds
from maskedconv.runs.images import Size, data_key
from maskedconv.runs.same import learned_fraction
from maskedconv.runs.time_left import TimeLeft
from maskedconv.runs.timing import Job, Pace, measure
from maskedconv.runs.workers import Workers
from maskedconv.training.history import Epoch

SIZE = Size(10, (1, 8, 8), 1000, 300)
SIZES = {("digits", None): SIZE}
ONE = Workers(1, "cpu", 1)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def seconds_on(clock, action, device):
    """The seconds of ``action`` on a simulated clock."""
    begin = clock.now
    action()
    return clock.now - begin


@pytest.fixture
def paces(monkeypatch):
    """Networks with a training time proportional to their learned fraction; records calls."""
    asked = []

    def measured(job, device):
        asked.append(job.config)
        return Pace(start=1.0, train=1e-3 * (1 + learned_fraction(job.config)), test=2e-3)

    monkeypatch.setattr(estimating, "measure", measured)
    return asked


def test_every_image_of_every_epoch_is_counted_and_shares_are_interpolated(paces):
    runs = [
        config("wrn_10_1", learned=p, epochs=3, seed=s) for p in (0.25, 0.5, 1.0) for s in (0, 1)
    ]
    found = estimate(runs, SIZES, ONE)
    for run in runs:
        exact = 1 + 3 * (1000 * 1e-3 * (1 + learned_fraction(run)) + 300 * 2e-3)
        assert found[run.key] == pytest.approx(exact)
    assert [run.learned for run in paces] == [0.25, 1.0]


def test_kinds_that_take_another_time_are_timed_apart(paces):
    run = config("densenet_bc_16_12", learned=0.5)
    others = [
        replace(run, frozen="zero"),
        replace(run, slice_dim=1),
        replace(run, optimizer="adam"),
        replace(run, trained="fc"),
        replace(run, amp="bf16"),
        replace(run, batch_size=8),
        replace(run, model="wrn_10_1"),
    ]
    same = [replace(run, lr=0.3), replace(run, epochs=9), replace(run, seed=4)]
    estimate([run, *same, *others], SIZES, ONE)
    assert len(paces) == 1 + len(others)
    paces.clear()
    coarse_estimate([run, *same, *others[:4]], SIZES, ONE)
    assert paces == [run]


def test_members_of_an_ensemble_answer_once_more(paces):
    run = config("wrn_10_1", learned=0.5, epochs=2)
    members = replace(run, start="0" * 16, members=3)
    found = estimate([run, members], SIZES, ONE)
    assert found[members.key] - 1 == pytest.approx(3 * (found[run.key] - 1) + 3 * 300 * 2e-3)


measure_here = estimating._measure_here


def measured_together(job):
    """Times a network in a worker process once another one is about to do so as well."""
    folder, end = Path(os.environ["TIMED_IN"]), time.monotonic() + 120
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < 2:
        assert time.monotonic() < end, "the networks are timed one after another"
        time.sleep(0.01)
    return measure_here(job)


def test_several_at_once_are_timed_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMED_IN", str(tmp_path))
    monkeypatch.setattr(estimating, "_measure_here", measured_together)
    runs = [config("wrn_10_1", learned=p, batch_size=16) for p in (0.25, 1.0)]
    found = estimate(runs, SIZES, Workers(2, "cpu", 1))
    assert len(list(tmp_path.iterdir())) == 2
    assert all(seconds > 0 for seconds in found.values())


@pytest.mark.parametrize(
    ("seconds", "at_once", "total"),
    [((3, 1, 2), 1, 6), ((3, 1, 2), 2, 3), ((1, 1, 4), 2, 5), ((1, 1, 4), 8, 4), ((), 2, 0)],
)
def test_the_last_run_ends_when_a_schedule_says(seconds, at_once, total):
    runs = [config(seed=seed) for seed in range(len(seconds))]
    by_key = {run.key: took for run, took in zip(runs, seconds, strict=True)}
    assert total_seconds(runs, by_key, at_once) == total


def test_a_run_waits_for_its_start():
    start = config(keep=True)
    member = config(start=start.key)
    assert total_seconds([start, member], {start.key: 2.0, member.key: 3.0}, 2) == 5.0


def test_what_is_timed_is_what_runs_do(monkeypatch):
    """Several batches, the optimizer and the augmentation of the run, and the test images."""
    calls, clock = [], Clock()

    def train(model, dataset, training):
        calls.append((dataset, training))
        clock.now += 0.02 + 1e-3 * len(dataset.train_images)

    def evaluate(model, dataset, amp):
        clock.now += 0.02

    monkeypatch.setattr(timing, "train", train)
    monkeypatch.setattr(timing, "evaluate", evaluate)
    monkeypatch.setattr(timing, "_seconds", partial(seconds_on, clock))
    run = config("wrn_10_1", learned=0.5, batch_size=32, optimizer="adam")
    pace = measure(Job(run, SIZE), torch.device("cpu"))
    dataset, training = calls[-1]
    assert training.optimizer == "adam"
    assert training.batch_size == 32
    assert len(dataset.train_images) == timing.BATCHES * 32
    assert len(dataset.test_images) == 128
    assert (dataset.crop_padding, dataset.flip) == (1, False)
    # An epoch ends with an evaluation, which is not counted as training.
    assert pace.train == pytest.approx(1e-3)
    assert pace.test == pytest.approx(0.02 / 128)


def epoch(seconds):
    return Epoch(1, 1.0, 50.0, 1.0, 50.0, seconds, 0.1)


def play(runs, guessed, actual, at_once):
    """Simulates ``runs`` on a clock; yields the shown and the actual remaining time."""
    clock = Clock()
    left = TimeLeft(runs, guessed, at_once, total_seconds, clock)
    waiting, going, events = list(runs), {}, []
    length = total_seconds(runs, {run.key: actual[run.key] for run in runs}, at_once)
    while waiting or going:
        while waiting and len(going) < at_once:
            run = waiting.pop(0)
            left.started(run)
            going[run] = 0
            events.append((clock.now + actual[run.key] / run.epochs, run))
        events.sort(key=lambda event: event[0])
        clock.now, run = events.pop(0)
        going[run] += 1
        left.epoch(run, epoch(actual[run.key] / run.epochs))
        if going[run] == run.epochs:
            del going[run]
            left.finished(run)
        else:
            events.append((clock.now + actual[run.key] / run.epochs, run))
        yield clock.now / length, left.seconds, length - clock.now


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("off", [0.4, 1.0, 2.5])
def test_the_time_left_is_within_a_half_however_runs_end(at_once, off):
    """Networks of different cost; parallel runs end at the same time."""
    cost = {"wrn_10_1": 1.0, "densenet_bc_16_12": 5.0, "alexnet": 0.5}
    runs = [
        config(model, learned=p, epochs=6, seed=seed)
        for model in cost
        for p in (0.1, 1.0)
        for seed in (0, 1)
    ]
    guessed = {run.key: 6 * cost[run.model] for run in runs}
    actual = {key: off * seconds for key, seconds in guessed.items()}
    shown = [(told, is_left) for part, told, is_left in play(runs, guessed, actual, at_once)]
    for told, is_left in shown[:-1]:
        if is_left > 0.02 * sum(actual.values()):
            assert is_left / 1.5 <= told <= is_left * 1.5
    assert shown[-1][0] == 0


def test_between_epochs_the_clock_goes_on():
    run = config(epochs=2)
    clock = Clock()
    left = TimeLeft([run], {run.key: 20.0}, 1, total_seconds, clock)
    left.started(run)
    assert left.seconds == 20
    clock.now = 4
    assert left.seconds == 16
    left.epoch(run, epoch(10.0))
    assert left.seconds == 10
    clock.now = 100
    assert left.seconds == 0


def test_a_terminal_is_told_the_time_left(monkeypatch):
    monkeypatch.setattr(running.sys.stderr, "isatty", lambda: True, raising=False)
    digits = {("digits", None): data.load("digits", subset=2)}
    run = config("wrn_10_1", batch_size=16)
    assert data_key(run) in digits
    worker_config, here = running.WorkerConfig(".", "cpu", 1), Engine()
    assert running._time_left([run], digits, worker_config, here, 1).seconds > 0
    assert running._time_left([], digits, worker_config, here, 1) is None
    monkeypatch.setattr(running.sys.stderr, "isatty", lambda: False, raising=False)
    assert running._time_left([run], digits, worker_config, here, 1) is None


def test_the_bar_shows_it():
    from maskedconv.cli.progress import ConsoleObserver, _TimeLeftColumn

    run = config(epochs=2)
    left = TimeLeft([run], {run.key: 400.0}, 1, total_seconds, Clock())
    with ConsoleObserver([run], left) as observer:
        observer.started(run)
        observer.epoch(run, epoch(100.0))
        shown = _TimeLeftColumn(left).render(None).plain
    assert shown == "about 1 min 40 s left "


def test_dry_run_says_what_is_timed():
    result = call(
        reproduce, "fig6", "--dry-run", "--subset", "2", "--epochs", "1", "--parallel", "1"
    )
    assert result.exit_code == 0, result.output
    assert "timing some batches of each kind of run" in result.stderr
    assert "about" in result.stdout.splitlines()[-1]
