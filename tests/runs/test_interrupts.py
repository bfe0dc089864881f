"""Ctrl-C and SIGTERM: the first saves the runs in progress, the second stops at once."""

from __future__ import annotations

import errno
import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import killed_runs
import pytest
import report_samples as samples
from commands import call

from maskedconv import train
from maskedconv.cli.epoch_table import EpochTable
from maskedconv.data import Dataset
from maskedconv.runs import Store, StoreError
from maskedconv.runs.checkpoints import has_checkpoint
from maskedconv.runs.images import data_key
from maskedconv.runs.parallel import run_parallel
from maskedconv.runs.sequential import run_all
from maskedconv.runs.workers import WorkerConfig
from maskedconv.training import evaluation, interrupts
from maskedconv.training.checkpoint import Checkpoint

RUN = replace(killed_runs.SMALL, epochs=2, keep=False)
HERE = os.getpid


class Quiet:
    """Observes nothing; ``at_epoch`` is called with each epoch's number."""

    def __init__(self, at_epoch=lambda epoch: None):
        self._at_epoch = at_epoch

    def started(self, config):
        pass

    def epoch(self, config, epoch):
        self._at_epoch(epoch.epoch)

    def finished(self, config, row):
        pass

    def waiting(self, runs):
        pass


@pytest.fixture(scope="module")
def dataset():
    return killed_runs.small_dataset()


def do(out, dataset, observer=None):
    store = Store(out)
    store.prepare()
    rows = run_all([RUN], store, lambda _: dataset, observer or Quiet(), checkpoint_seconds=1e9)
    return without_times(rows[RUN.key])


def without_times(row):
    assert row["status"] == "done", row
    return [{**epoch, "seconds": 0} for epoch in row["history"]]


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    return do(tmp_path_factory.mktemp("whole"), dataset)


def signal_at_batch(monkeypatch, name, number, count, times=1):
    """Sends this process the signal before batch ``count`` of the iterator ``name``."""
    plain = getattr(Dataset, name)
    seen = []

    def batches(*arguments, **options):
        for batch in plain(*arguments, **options):
            seen.append(batch)
            if len(seen) == count:
                for _ in range(times):
                    os.kill(HERE(), number)
            yield batch

    monkeypatch.setattr(Dataset, name, batches)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("train_batches", 1),
        ("train_batches", 3),
        ("train_batches", 14),
        ("test_batches", 1),
        ("test_batches", 3),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_bits(
    name, count, number, whole, dataset, tmp_path, monkeypatch, capfd
):
    """The interrupt comes within an epoch, at its last batch, or during evaluation."""
    before = signal.getsignal(number)
    monkeypatch.setattr(evaluation, "CPU_TEST_BATCH_SIZE", 10)
    with monkeypatch.context() as patch:
        signal_at_batch(patch, name, number, count)
        with pytest.raises(KeyboardInterrupt):
            do(tmp_path, dataset)
    assert has_checkpoint(tmp_path, RUN)
    assert "interrupt again to stop at once" in capfd.readouterr().err
    assert signal.getsignal(number) is before
    assert not interrupts.requested()
    batches = []
    plain = Dataset.train_batches
    monkeypatch.setattr(
        Dataset,
        "train_batches",
        lambda *a, **o: (batches.append(batch) or batch for batch in plain(*a, **o)),
    )
    assert do(tmp_path, dataset) == whole
    # An epoch has ten batches. The next batch is not started, except the first of a run.
    assert len(batches) == 20 - (max(1, count - 1) if name == "train_batches" else 10)
    assert not has_checkpoint(tmp_path, RUN)


def test_an_interrupt_at_the_end_of_an_epoch(whole, dataset, tmp_path):
    at_epoch = lambda epoch: os.kill(HERE(), signal.SIGINT)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, dataset, Quiet(at_epoch))
    seen = []
    assert do(tmp_path, dataset, Quiet(seen.append)) == whole
    assert seen == [1, 2]


def test_the_second_stops_at_once(dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at_batch(patch, "train_batches", signal.SIGINT, 3, times=2)
        with pytest.raises(KeyboardInterrupt):
            do(tmp_path, dataset)
    assert not has_checkpoint(tmp_path, RUN)


def test_an_interrupt_behind_the_training_keeps_the_row(dataset, tmp_path, monkeypatch):
    append = Store.append

    def interrupted(self, row):
        os.kill(HERE(), signal.SIGINT)
        append(self, row)

    monkeypatch.setattr(Store, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, dataset)
    assert Store(tmp_path).load().finished(RUN.key)


def test_the_checkpoint_stays_until_the_row_is_written(whole, dataset, tmp_path, monkeypatch):
    def full(self, row):
        raise StoreError("the disk is full")

    store = Store(tmp_path)
    store.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", full)
        with pytest.raises(StoreError, match="the disk is full"):
            run_all([RUN], store, lambda _: dataset, Quiet(), checkpoint_seconds=0)
    assert has_checkpoint(tmp_path, RUN)
    assert do(tmp_path, dataset) == whole


def test_a_run_that_another_command_has_just_finished(tmp_path, monkeypatch):
    """The other one writes its row and lets the run go right before it is claimed here."""
    claim = Store.claim

    @contextmanager
    def late(self, key):
        with claim(self, key) as mine:
            self.append(samples.row(RUN, 50.0))
            yield mine

    monkeypatch.setattr(Store, "claim", late)
    store = Store(tmp_path)
    store.prepare()
    rows = run_all([RUN], store, lambda _: pytest.fail("it is done again"), Quiet())
    assert rows[RUN.key]["best_top1"] == 50.0


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.noted():
            os.kill(HERE(), signal.SIGINT)
            assert not interrupts.requested()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_runs_at_once_are_saved_too(number, dataset, tmp_path, monkeypatch, capfd):
    long = replace(RUN, epochs=400)
    store = Store(tmp_path)
    store.prepare()
    observer = Quiet(lambda epoch: os.kill(HERE(), number) if epoch == 1 else None)
    worker_config = WorkerConfig(tmp_path, "cpu", 1, 1e9)
    with pytest.raises(KeyboardInterrupt):
        run_parallel([long], {data_key(long): dataset}, observer, worker_config, 2)
    assert "saving the runs in progress" in capfd.readouterr().err
    assert has_checkpoint(tmp_path, long)
    stored, take = [], Checkpoint.take

    def taken(self):
        stored.append(self.stored_epochs)
        return take(self)

    monkeypatch.setattr(Checkpoint, "take", taken)
    # Finished epochs are told again when a run resumes.
    epochs, told = [], Quiet(lambda epoch: epochs.append(epoch) or os.kill(HERE(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run_all([long], store, lambda _: dataset, told, checkpoint_seconds=1e9)
    assert stored[0] >= 1
    assert epochs[:1] == [1]


def test_an_error_of_the_observer_is_not_the_runs(whole, dataset, tmp_path):
    def closed(epoch):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    store = Store(tmp_path)
    store.prepare()
    with pytest.raises(BrokenPipeError):
        run_all([RUN], store, lambda _: dataset, Quiet(closed), checkpoint_seconds=0)
    assert store.load().rows == {}
    assert has_checkpoint(tmp_path, RUN)
    assert do(tmp_path, dataset) == whole


TRAIN = ("--model", "wrn_10_1", "--epochs", "3", "--subset", "5", "--learned", "0.5")


def interrupting(monkeypatch, times):
    epoch = EpochTable.epoch

    def interrupted(self, config, result):
        epoch(self, config, result)
        for _ in range(times):
            os.kill(HERE(), signal.SIGINT)

    monkeypatch.setattr(EpochTable, "epoch", interrupted)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (1, "the same command resumes from its last checkpoint"),
        (2, "nothing was saved yet, and the same command restarts it"),
    ],
)
def test_train_says_what_is_so(times, words, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupting(patch, times)
        result = call(train, *TRAIN, "--out", tmp_path)
    assert result.exit_code == 130, result.output
    assert words in result.stderr
    again = call(train, *TRAIN, "--out", tmp_path)
    assert again.exit_code == 0
    assert [line.split()[0] for line in again.stdout.splitlines()] == ["epoch", *"123", "last"]


def test_train_without_a_folder_says_that_nothing_is_kept(monkeypatch):
    interrupting(monkeypatch, 1)
    result = call(train, *TRAIN)
    assert result.exit_code == 130
    assert "nothing was saved, because --out FOLDER was not given" in result.stderr
