"""Runs on a local Ray cluster: a killed worker, a second start, and refusals."""

from __future__ import annotations

import json
import time

import pytest
from commands import SMALL, SMALL_RUNS, call, keys, start, wait_until
from killed_workers import kill_one_midway, results

from maskedconv import reproduce
from maskedconv.runs import engine
from maskedconv.runs.engine import Engine

# Epochs enough that a run of the small networks is met in its middle.
RUNS = (*SMALL, "--epochs", "4", "--threads", "1", "--checkpoint-minutes", "0")
ON_RAY = (*RUNS, "--engine", "ray", "--address", "local", "--parallel", "3")


def test_run_of_a_killed_worker_is_resumed_and_none_is_done_twice(tmp_path):
    pytest.importorskip("ray")
    out, sequence = tmp_path / "ray", tmp_path / "sequence"
    process = start(*ON_RAY, "--out", out)
    killed = kill_one_midway(out, after=1)
    assert (out / ".checkpoints" / f"{killed}.pt").exists()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert len(keys(out)) == len(set(keys(out))) == SMALL_RUNS
    # Each run that is done removes its checkpoint, the resumed one too.
    assert not list((out / ".checkpoints").iterdir())

    in_turn = call(reproduce, *RUNS, "--parallel", "1", "--out", sequence)
    assert in_turn.exit_code == 0, in_turn.output
    assert results(out) == results(sequence)

    rows = (out / "results.jsonl").read_bytes()
    again = call(reproduce, *ON_RAY, "--out", out)
    assert again.exit_code == 0, again.output
    assert f"{SMALL_RUNS} of {SMALL_RUNS} runs are finished" in again.stderr
    assert (out / "results.jsonl").read_bytes() == rows
    assert json.loads(rows.splitlines()[0])["status"] == "done"


def test_interrupted_tasks_save_their_runs(tmp_path):
    pytest.importorskip("ray")
    process = start(
        *SMALL, "--engine", "ray", "--parallel", "2", "--threads", "1", "--epochs", "400",
        "--out", tmp_path,
    )  # fmt: skip
    wait_until_locked(tmp_path, process)
    process.terminate()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert f"interrupted: 0 of {SMALL_RUNS} runs are finished in {tmp_path}, 2 more" in said
    assert len(list((tmp_path / ".checkpoints").glob("*.pt"))) == 2


def wait_until_locked(out, process):
    """Waits until two runs are in progress."""
    wait_until(lambda: len(list((out / ".claims").glob("*.lock"))) >= 2, process)
    # The claim comes before the training.
    time.sleep(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "slurm"), "engine"),
        (("--address", "auto"), "address is 'auto'; expected --engine ray with it"),
        (("--gpus-per-run", "0.25"), "gpus_per_run is 0.25; expected --engine ray with it"),
        (("--engine", "ray", "--gpus-per-run", "1.5"), "gpus_per_run is 1.5; expected 0 to 1"),
        (("--engine", "ray", "--address", "here"), "address is 'here'; expected local, auto"),
        (("--engine", "ray", "--dry-run"), "dry_run is True with engine ray"),
        (("--engine", "ray", "--device", "cuda"), "device is 'cuda' and gpus_per_run None"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(engine, "find_spec", lambda name: name)
    result = call(reproduce, *SMALL, *options, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'maskedconv\[ray\]'"):
        Engine("ray")


def test_device_of_the_runs_is_that_of_the_cluster(monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: name)
    assert Engine("ray", gpus_per_run=0.25).device("auto") == "cuda"
    assert Engine("ray").device("auto") == "cpu"
    with pytest.raises(ValueError, match=r"device is 'cpu' and gpus_per_run 0\.25"):
        Engine("ray", gpus_per_run=0.25).device("cpu")


def test_cluster_without_place_for_a_run_is_told(tmp_path):
    pytest.importorskip("ray")
    result = call(
        reproduce, *SMALL, "--engine", "ray", "--gpus-per-run", "64", "--amp", "off", "--out",
        tmp_path,
    )  # fmt: skip
    assert result.exit_code == 1
    assert "a run takes 1 CPU, 64 GPU; the Ray cluster has" in result.stderr
    assert "0 GPU in total" in result.stderr
