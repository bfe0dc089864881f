"""``torchrun -m maskedconv.train``: two processes, one of them killed, and errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import call, wait_until
from killed_workers import results
from safetensors.torch import load_file

from maskedconv import load_run, train
from maskedconv.runs import Store
from maskedconv.training.device import open_device
from maskedconv.training.torchrun import Processes

# Without a norm, so that two processes compute what one does; 43 images in the last batch.
RUN = (
    "--model", "conv4", "--option", "width=0.125", "--learned", "0.5", "--optimizer", "sgd",
    "--lr", "0.05", "--batch-size", "51", "--subset", "40", "--device", "cpu", "--amp", "off",
    "--epochs", "4",
)  # fmt: skip


def started(*arguments):
    """Two processes of the command, in a session of their own."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return subprocess.Popen(
        [*torchrun, "-m", "maskedconv.train", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def finished(process):
    stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stdout, stderr


def started_and_saved(command, out):
    """The processes of the command, after they have written a checkpoint."""
    before = written(out)
    process = started(*command)
    wait_until(lambda: written(out) != before, process)
    return process


def written(out):
    return [path.stat().st_mtime_ns for path in (out / ".checkpoints").glob("*.pt")]


def worker(agent, rank):
    """The process of that rank."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            status = (Path("/proc") / pid / "status").read_text()
            environment = (Path("/proc") / pid / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"\nPPid:\t{agent}\n" in status and f"RANK={rank}".encode() in environment:
            return int(pid)
    raise AssertionError(f"no process {rank} of {agent}")


@pytest.fixture(scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder and the output of an uninterrupted run of two processes."""
    out = tmp_path_factory.mktemp("whole")
    code, stdout, stderr = finished(started(*RUN, "--out", out, "--keep"))
    assert code == 0, stderr
    return out, stdout, stderr


def test_result_is_that_of_one_process(whole, one_thread, tmp_path):
    out, stdout, stderr = whole
    alone = call(train, *RUN, "--out", tmp_path, "--keep")
    assert alone.exit_code == 0, alone.output
    assert [line.split()[0] for line in stdout.splitlines()] == [
        line.split()[0] for line in alone.stdout.splitlines()
    ]
    assert stderr.count("conv4 width=0.125 p=.5 random by 2 processes, digits") == 1
    (row,), (other,) = results(out).values(), results(tmp_path).values()
    assert row["config"].pop("processes") == 2
    assert other["config"].pop("processes") == 1
    for epoch, its in zip(row["history"], other["history"], strict=True):
        assert epoch == pytest.approx(its, rel=1e-4)
    assert row["learned_parameters"] == other["learned_parameters"]
    one, two = (load_run(folder).network.state_dict() for folder in (out, tmp_path))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-3, atol=1e-5)


def test_killed_and_interrupted_run_resumes(whole, tmp_path):
    """Each process takes SIGKILL once, then all are interrupted; the last start ends the run."""
    command = (*RUN, "--out", tmp_path, "--keep", "--checkpoint-minutes", 0)
    for rank in (1, 0):
        process = started_and_saved(command, tmp_path)
        os.kill(worker(process.pid, rank), signal.SIGKILL)
        code, _, stderr = finished(process)
        assert code == 1
        told = "error: another process of this training ended; the same command resumes from"
        assert stderr.count(told) == 1, stderr
        assert Store(tmp_path).load().rows == {}
    process = started_and_saved(command, tmp_path)
    process.send_signal(signal.SIGINT)
    _, _, stderr = finished(process)
    told = "interrupted: the run is not finished; the same command resumes from its last checkpoint"
    assert stderr.count(told) == 1, stderr
    assert Store(tmp_path).load().rows == {}
    code, _, stderr = finished(started(*command))
    assert code == 0, stderr
    assert "warning" not in stderr.lower()
    assert results(tmp_path) == results(whole[0])
    (name,) = (row["weights"] for row in results(tmp_path).values())
    values, expected = load_file(tmp_path / name), load_file(whole[0] / name)
    assert all(torch.equal(value, expected[key]) for key, value in values.items())


def test_errors_are_told_once():
    process = started("--model", "lenet", "--device", "cpu")
    code, stdout, stderr = finished(process)
    assert (code, stdout) == (1, "")
    assert stderr.count("error: name is 'lenet', which is no network") == 1, stderr


def test_a_process_needs_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    device = open_device("auto", None, Processes(rank=5, count=8, local_rank=1, local_count=2))
    assert (device, chosen) == (torch.device("cuda", 1), [1])
    assert open_device("cuda", None, Processes()) == torch.device("cuda")
    with pytest.raises(ValueError, match="torchrun started 4 processes on a machine with 2 GPUs"):
        open_device("auto", None, Processes(rank=3, count=4, local_rank=3, local_count=4))
