"""The recorder of CUDA graphs, with replacements for all functions of torch.cuda."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import pytest
import torch

from maskedconv.training.cuda_graphs import CudaGraphs

SYNCHRONIZED = "called a synchronizing CUDA operation (Triggered internally at CUDAFunctions.cpp)"


@pytest.fixture
def calls(monkeypatch):
    """The calls in order, and the current stream; fails for names that torch.cuda does not have."""
    calls, current, mode = [], ["default"], [0]

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            calls.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def stream(chosen):
        current.append(chosen.name)
        try:
            yield
        finally:
            current.pop()

    @contextmanager
    def graph(captured, stream):
        calls.append(f"capture on {stream.name}")
        yield
        # As torch.cuda.graph: without a finally.
        calls.append("captured")

    class Graph:
        def replay(self):
            calls.append("replay")

    replacements = {
        "Stream": lambda device: Stream("side"),
        "current_stream": lambda device: Stream(current[-1]),
        "stream": stream,
        "graph": graph,
        "CUDAGraph": Graph,
        "get_sync_debug_mode": lambda: mode[-1],
        "set_sync_debug_mode": mode.append,
    }
    for name, value in replacements.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def run():
        calls.append(f"run on {current[-1]}, mode {mode[-1]}")

    yield calls, run
    assert (current, mode[-1]) == (["default"], 0)


def test_a_warm_up_runs_aside_and_is_watched(calls):
    calls, run = calls
    assert CudaGraphs("cuda").warm_up(run) == ""
    assert calls == ["side waits for default", "run on side, mode warn", "default waits for side"]


def test_the_first_line_that_waits_is_named(calls):
    def run():
        warnings.warn("something else", UserWarning, stacklevel=1)
        warnings.warn_explicit(SYNCHRONIZED, UserWarning, "net.py", 7)
        warnings.warn_explicit(SYNCHRONIZED, UserWarning, "net.py", 9)

    with pytest.warns(UserWarning, match="something else") as issued:
        assert CudaGraphs("cuda").warm_up(run) == "net.py:7"
    assert len(issued) == 1


def test_a_capture_is_of_the_same_stream_and_replays_on_the_current_one(calls):
    calls, run = calls
    replay = CudaGraphs("cuda").record(run)
    aside = ["capture on side", "run on side, mode 0", "captured"]
    assert calls == ["side waits for default", *aside, "default waits for side"]
    replay()
    assert calls[-1] == "replay"


@pytest.mark.parametrize("method", ["warm_up", "record"])
def test_an_error_restores_the_stream_and_the_mode(method, calls):
    def fail():
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        getattr(CudaGraphs("cuda"), method)(fail)
