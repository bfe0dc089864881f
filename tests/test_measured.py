"""The ranking by measurement: what is timed, checked and kept. Devices and clocks are stand-ins."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from maskedconv.ops import measured


class Problem(NamedTuple):
    values: Tensor
    backend: str = ""


class Backend:
    """Doubles the values, plus an error; ``milliseconds`` is what it is said to take."""

    def __init__(self, milliseconds, error=0.0, refuses="", raises=None):
        self.milliseconds, self.error, self.refuses = milliseconds, error, refuses
        self.raises = raises
        self.runs = 0

    def cannot_run(self, problem):
        return self.refuses

    def run(self, problem):
        self.runs += 1
        if self.raises is not None:
            raise self.raises
        return problem.values * 2 + self.error


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.setattr(measured, "_rankings", {})
    monkeypatch.setattr(measured, "_time", lambda backend, problem: backend.milliseconds)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


def rank(backends, size=4):
    return measured.ranking("double", backends, Problem(torch.arange(1.0, size + 1)))


def test_the_fastest_comes_first_and_is_measured_once():
    backends = {"reference": Backend(3.0), "triton": Backend(1.0), "cuda": Backend(2.0)}
    ranking = rank(backends)
    assert ranking.names == ("triton", "cuda", "reference")
    assert ranking.reason == (
        "the fastest when timed: triton 1.000 ms, cuda 2.000 ms, reference 3.000 ms"
    )
    runs = backends["cuda"].runs
    assert rank(backends) is ranking
    assert backends["cuda"].runs == runs
    rank(backends, size=5)
    assert backends["cuda"].runs > runs


def test_what_cannot_run_is_not_tried():
    backends = {"reference": Backend(3.0), "native": Backend(1.0, refuses="for the CPU")}
    assert rank(backends).names == ("reference",)
    assert backends["native"].runs == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Backend(1.0, error=0.5), "cuda kernel is off by 0.5 where values reach 8"),
        (Backend(1.0, error=float("nan")), "is off by nan"),
        (Backend(1.0, raises=RuntimeError("no such launch")), "RuntimeError: no such launch"),
    ],
)
def test_a_wrong_kernel_is_named_and_left_out(wrong, message):
    with pytest.warns(UserWarning, match=message):
        ranking = rank({"reference": Backend(3.0), "cuda": wrong})
    assert ranking.names == ("reference",)


def test_deterministic_results_do_not_hang_on_timings():
    backends = {"reference": Backend(3.0), "cuda": Backend(1.0)}
    assert rank(backends).names[0] == "cuda"
    torch.use_deterministic_algorithms(True)
    try:
        assert rank(backends) is measured.UNMEASURED
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_is_timed_while_a_graph_is_captured(monkeypatch):
    backends = {"reference": Backend(3.0), "cuda": Backend(1.0)}
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert rank(backends) is measured.UNMEASURED
    assert backends["cuda"].runs == 0
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    known = rank(backends)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert rank(backends) is known
