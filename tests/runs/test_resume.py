"""A stopped run resumes bit for bit."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import killed_runs
import pytest
import torch
from killed_runs import OPTIMIZERS, SMALL
from safetensors.torch import load_file
from stopped_runs import stopped_after

from maskedconv.data import Dataset
from maskedconv.runs import RunConfig
from maskedconv.runs.checkpoints import checkpoint_path, remove_checkpoint
from maskedconv.runs.execute import execute
from maskedconv.runs.formats import read_row, write_row
from maskedconv.runs.store import StoreError
from maskedconv.training.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def dataset():
    return killed_runs.small_dataset()


# The scope is the module, so that this precedes the uninterrupted run.
@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):
    """The folder and the row of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, execute(SMALL, dataset, folder=folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folder of runs that were killed at drawn moments, and the number of kills of each."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, killed_runs.__file__, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return folder, json.loads(done.stdout)


def weights_of(folder, row):
    return load_file(folder / row["weights"])


def assert_same_results(folder, row, other_folder, other):
    assert row["status"] == other["status"] == "done"
    for name in ("last_top1", "layers", "first_layer"):
        assert row[name] == other[name]
    for epoch, again in zip(row["history"], other["history"], strict=True):
        assert {**epoch, "seconds": 0} == {**again, "seconds": 0}
    tensors, others = weights_of(folder, row), weights_of(other_folder, other)
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_killed_at_drawn_moments(name, killed, dataset, tmp_path):
    folder, kills = killed
    config = replace(SMALL, **OPTIMIZERS[name])
    row = execute(config, dataset, folder=tmp_path)
    # The last process left its weights and a final checkpoint, from which a row can be written.
    again = execute(config, dataset, folder=folder)
    assert kills[name] >= 2
    assert_same_results(tmp_path, row, folder, again)


def interrupt(monkeypatch, config, dataset, folder, writes):
    with stopped_after(monkeypatch, writes):
        execute(config, dataset, folder=folder, checkpoint_seconds=0)


# In an epoch of 10 batches, a write follows 9 batches and the end of the epoch.
@pytest.mark.parametrize(
    ("writes", "batches_left"), [(1, 29), (9, 21), (10, 20), (11, 19), (30, 0)]
)
def test_only_what_is_missing_is_done(
    writes, batches_left, dataset, uninterrupted, tmp_path, monkeypatch
):
    interrupt(monkeypatch, SMALL, dataset, tmp_path, writes)
    drawn, told = [], []
    train_batches = Dataset.train_batches

    def counted(*args, **kwargs):
        for batch in train_batches(*args, **kwargs):
            drawn.append(batch)
            yield batch

    monkeypatch.setattr(Dataset, "train_batches", counted)
    torch.rand(5)
    row = execute(SMALL, dataset, told.append, folder=tmp_path)
    assert len(drawn) == batches_left
    assert [epoch.epoch for epoch in told] == [1, 2, 3]
    assert_same_results(*uninterrupted, tmp_path, row)


def test_the_time_before_counts(dataset, tmp_path, monkeypatch):
    interrupt(monkeypatch, SMALL, dataset, tmp_path, 30)
    spent = sum(epoch["seconds"] for epoch in execute(SMALL, dataset, folder=tmp_path)["history"])
    row = execute(SMALL, dataset, folder=tmp_path)
    # Only the row was missing.
    assert row["seconds"] > spent > 0


def test_a_row_has_the_times_of_every_process(dataset, uninterrupted, tmp_path, monkeypatch):
    for writes in (2, 3):
        interrupt(monkeypatch, SMALL, dataset, tmp_path, writes)
    row = execute(SMALL, dataset, folder=tmp_path)
    assert len(row["spans"]) == 3
    assert row["spans"][-1]["started"] >= row["started"]
    assert sum(span["seconds"] for span in row["spans"]) == pytest.approx(row["seconds"], abs=0.01)
    assert read_row(write_row(row), "line 1")["spans"] == row["spans"]
    assert "spans" not in uninterrupted[1]


def test_a_checkpoint_of_an_older_version_has_no_times_of_processes(
    dataset, tmp_path, monkeypatch, uninterrupted
):
    interrupt(monkeypatch, SMALL, dataset, tmp_path, 3)
    read = Checkpoint._read

    def older(self):
        return {name: value for name, value in read(self).items() if name != "spans"}

    monkeypatch.setattr(Checkpoint, "_read", older)
    row = execute(SMALL, dataset, folder=tmp_path)
    assert "spans" not in row
    assert_same_results(*uninterrupted, tmp_path, row)


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("spoil", [damage, cut, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_reported_and_not_used(
    spoil, dataset, uninterrupted, tmp_path, monkeypatch, capsys
):
    interrupt(monkeypatch, SMALL, dataset, tmp_path, 3)
    spoil(checkpoint_path(tmp_path, SMALL))
    row = execute(SMALL, dataset, folder=tmp_path)
    assert "is damaged; the run restarts" in capsys.readouterr().err
    assert_same_results(*uninterrupted, tmp_path, row)


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        ({"config": {"lr": 0.2}}, "is of another config"),
        ({"torch": "0.1"}, "is of another torch ('0.1', not "),
    ],
)
def test_a_foreign_checkpoint_is_reported_and_not_used(identity, words, tmp_path, capsys):
    own, path = {"config": {"lr": 0.1}}, tmp_path / "folder" / "run.pt"
    written = Checkpoint(path, own, 0)
    written._identity |= identity
    written.write({"batch": 3})
    found = Checkpoint(path, own, 0)
    assert found.take() is None
    assert f"{path} {words}" in capsys.readouterr().err


def test_the_checkpoint_of_other_images_is_not_used(dataset, tmp_path, capsys, uninterrupted):
    other = replace(dataset, train_images=dataset.train_images.flip(0))

    def stop(epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(SMALL, other, stop, folder=tmp_path, checkpoint_seconds=0)
    assert checkpoint_path(tmp_path, SMALL).exists()
    row = execute(SMALL, dataset, folder=tmp_path)
    assert "is of another data" in capsys.readouterr().err
    assert row["data_digest"] == dataset.digest
    assert_same_results(*uninterrupted, tmp_path, row)


@pytest.mark.parametrize(("writes", "stored"), [(1, 0), (10, 1), (19, 1), (30, 3)])
def test_a_checkpoint_counts_its_epochs(writes, stored, dataset, tmp_path, monkeypatch):
    interrupt(monkeypatch, SMALL, dataset, tmp_path, writes)
    counts, take = [], Checkpoint.take

    def counted(self):
        counts.append(self.stored_epochs)
        return take(self)

    monkeypatch.setattr(Checkpoint, "take", counted)
    execute(SMALL, dataset, folder=tmp_path)
    assert counts == [stored]


def test_what_was_written_is_taken_once(tmp_path, capsys):
    path = tmp_path / "run.pt"
    first = Checkpoint(path, {"config": 1}, 0)
    first.context = {"members": [{"top1": 3.0}]}
    first.write({"batch": 3, "weight": torch.ones(2)})
    found = Checkpoint(path, {"config": 1}, 1000)
    assert found.due() is False
    assert first.due() is True
    assert found.context == {"members": [{"top1": 3.0}]}
    state = found.take()
    assert state["batch"] == 3
    assert torch.equal(state["weight"], torch.ones(2))
    assert found.take() is None
    assert capsys.readouterr().err == ""


def test_no_checkpoint_before_it_is_due_and_none_when_removed(dataset, tmp_path, monkeypatch):
    path = checkpoint_path(tmp_path, SMALL)
    execute(SMALL, dataset, folder=tmp_path)
    assert not path.exists()
    interrupt(monkeypatch, SMALL, dataset, tmp_path, 1)
    path.with_name(f".{path.name}.0123.partial").touch()
    remove_checkpoint(tmp_path, SMALL)
    assert list(path.parent.iterdir()) == []
    remove_checkpoint(tmp_path, SMALL)


@pytest.mark.parametrize("name", [".checkpoints", "weights"])
def test_a_folder_that_cannot_be_written_is_named(name, dataset, tmp_path):
    (tmp_path / name).write_text("in the way")
    with pytest.raises(StoreError, match=rf"{name}.* cannot be written"):
        execute(SMALL, dataset, folder=tmp_path, checkpoint_seconds=0)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    checkpoint = Checkpoint(path, {}, 0)
    checkpoint.write({"batch": 1})

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(StoreError, match=r"run\.pt cannot be written: No space left"):
            checkpoint.write({"batch": 2})
    assert Checkpoint(path, {}, 0).take() == {"batch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_file_of_something_else_is_told_and_left(tmp_path, capsys):
    path = tmp_path / "run.pt"
    for content in (b"", b"no pickle", b"\x80\x04]\x94."):
        path.write_bytes(hashlib.sha256(content).digest() + content)
        assert Checkpoint(path, {}, 0).take() is None
        assert "cannot be read by this version" in capsys.readouterr().err


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / ".run.pt.0123.partial").touch()
    Checkpoint(tmp_path / "run.pt", {}, 0)
    assert list(tmp_path.iterdir()) == []


def test_divergence_after_the_interruption_keeps_the_epochs_before(dataset, tmp_path, monkeypatch):
    config = RunConfig.from_json({**SMALL.to_json(), "lr": 1e9, "keep": False, "learned": 1.0})
    whole = execute(config, dataset)
    assert whole["error_type"] == "Diverged"
    interrupt(monkeypatch, config, dataset, tmp_path, 2)
    again = execute(config, dataset, folder=tmp_path)
    assert again["error"] == whole["error"]
    assert len(again["history"]) == len(whole["history"])
