"""On a GPU: a training in a CUDA graph equals the eager one, with every optimizer that allows it.

Skipped if there is none; ``make gpu-check`` runs it.
"""

from __future__ import annotations

from dataclasses import replace

import killed_runs
import pytest
import torch
from stopped_runs import stopped_after
from torch import nn

from maskedconv.ops import dispatch, ranking_cache
from maskedconv.runs.execute import execute
from maskedconv.training.cuda_graphs import CudaGraphs
from maskedconv.training.loop import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

# 80 images: three batches of 24, and one of 8. With dropout, and a milestone after the first epoch.
RUN = replace(killed_runs.SMALL, batch_size=24, epochs=4, milestones=(1, 2))
ADAM = {"optimizer": "adam", "lr": 1e-3}


@pytest.fixture(scope="module")
def dataset():
    return killed_runs.small_dataset().to(torch.device("cuda"))


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch, tmp_path):
    """Kernels that repeat to the bit, so that two runs can be compared."""
    monkeypatch.setenv("MASKEDCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MASKEDCONV_BACKEND", "reference")
    ranking_cache.cache_for.cache_clear()
    dispatch.forget_decisions()
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)
    dispatch.forget_decisions()


def results(row):
    assert (row["status"], row["error"]) == ("done", None)
    return [{**epoch, "seconds": 0} for epoch in row["history"]], row["layers"]


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("changes", [{}, ADAM], ids=["sgd", "adam"])
def test_captured_runs_are_those_of_eager_steps(changes, amp, dataset, tmp_path, monkeypatch):
    run, rows, replays = replace(RUN, amp=amp, **changes), {}, []
    record = CudaGraphs.record

    def counted(self, function):
        replay = record(self, function)
        return lambda: replays.append(replay())

    monkeypatch.setattr(CudaGraphs, "record", counted)
    for graph in ("off", "on"):
        (tmp_path / graph).mkdir()
        rows[graph] = execute(run, dataset, folder=tmp_path / graph, graph=graph)
    # Three eager steps before the capture, and the smaller batch of each epoch.
    assert len(replays) == 4 * 3 - 3
    assert results(rows["on"]) == results(rows["off"])
    assert rows["on"]["peak_memory_bytes"] > rows["off"]["peak_memory_bytes"] / 2


def test_a_resumed_run_is_that_of_an_uninterrupted_one(dataset, tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("whole", "resumed")]
    for folder in folders:
        folder.mkdir()
    whole = execute(RUN, dataset, folder=folders[0], graph="on")
    with stopped_after(monkeypatch, 6):
        execute(RUN, dataset, folder=folders[1], checkpoint_seconds=0, graph="on")
    resumed = execute(RUN, dataset, folder=folders[1], graph="on")
    assert results(resumed) == results(whole)


class Waits(nn.Module):
    """Reads a value of the device in every step."""

    def __init__(self):
        super().__init__()
        self.flatten, self.linear = nn.Flatten(), nn.Linear(64, 2)

    def forward(self, x):
        return self.linear(self.flatten(x)) * (1 if float(x.detach().amax()) > 0 else 2)


def test_a_network_that_waits_is_trained_eagerly(dataset, capsys):
    train(Waits(), dataset, RUN, graph="auto")
    err = capsys.readouterr().err
    assert "not captured in a CUDA graph: the step waits for the device at" in err
    assert "test_gpu_captured_step.py" in err
    with pytest.raises(RuntimeError, match="graph is 'on', but the step waits for the device"):
        train(Waits(), dataset, RUN, graph="on")


def test_a_compiled_step_is_captured(dataset):
    run = replace(RUN, keep=False, compile=True)
    eager, captured = (execute(run, dataset, graph=graph) for graph in ("off", "on"))
    assert captured["status"] == eager["status"] == "done"
    for epoch, other in zip(captured["history"], eager["history"], strict=True):
        assert epoch["train_loss"] == pytest.approx(other["train_loss"], rel=0.05)
