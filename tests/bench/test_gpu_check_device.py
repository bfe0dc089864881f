"""The GPU device of bench.gpu_check, with replacements for all functions of torch.cuda."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from bench.gpu_check import device


class Event:
    """Accepts the arguments of torch.cuda.Event; its clock advances with each record."""

    now = 0.0

    def __init__(self, enable_timing=False):
        assert enable_timing

    def record(self, stream=None):
        Event.now += 1.0
        self.at = Event.now

    def query(self):
        return False

    def elapsed_time(self, later):
        return later.at - self.at


class Stream:
    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        pass


@pytest.fixture
def calls(monkeypatch):
    """The calls in order. Fails for names that torch.cuda does not have."""
    calls = []

    def replace(name, value=None):
        monkeypatch.setattr(torch.cuda, name, value or (lambda *_: calls.append(name)))

    class Graph:
        def replay(self):
            calls.append("replay")

    replace("current_device", lambda: 0)
    replace("Event", Event)
    replace("Stream", Stream)
    replace("CUDAGraph", Graph)
    replace("current_stream", lambda device=None: Stream())
    for context in ("device", "stream", "graph"):
        replace(
            context, lambda _, name=context, stream=None: (calls.append(name), nullcontext())[1]
        )
    replace("get_sync_debug_mode", lambda: 0)
    replace("set_sync_debug_mode", lambda mode: None)
    for name in ("_sleep", "synchronize", "reset_peak_memory_stats", "empty_cache"):
        replace(name)
    replace("max_memory_allocated", lambda: 7)
    replace("memory_allocated", lambda: 5)
    monkeypatch.setattr(device, "flush_cache", lambda: calls.append("flush"))
    return calls


def test_a_function_is_captured_after_its_warm_up(calls):
    cuda = device.Cuda()
    replay = cuda.capture(lambda: calls.append("run"), lambda: calls.append("prepare"))
    seen = [call for call in calls if call != "synchronize"]
    assert seen == [
        *3 * ("stream", "run"), "prepare", "reset_peak_memory_stats", "stream", "graph", "run",
    ]  # fmt: skip
    replay()
    assert calls[-1] == "replay"


def test_times_are_queued_behind_a_sleep_with_a_clean_cache(calls):
    times = device.Cuda().times(lambda: calls.append("run"), 3)
    assert times.held
    assert times.milliseconds == [1.0] * 3
    assert "".join("s" if call == "_sleep" else call[0] for call in calls if call in (
        "_sleep", "flush", "run",
    )) == "frfr" + "s" + "frfrfr"  # fmt: skip


def test_intervals_do_not_wait_in_between(calls):
    assert device.Cuda().intervals(lambda: calls.append("run"), 3) == [1.0] * 3
    assert calls == ["synchronize", "run", "run", "run", "synchronize"]


def test_memory(calls):
    cuda = device.Cuda()
    assert (cuda.peak(), cuda.allocated()) == (7, 5)
    cuda.free()
    assert "empty_cache" in calls


def test_it_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="is_available"):
        device.open_device(rehearse=False)
