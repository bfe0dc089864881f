"""The ranking while a CUDA graph is captured. Devices and clocks are stand-ins."""

from __future__ import annotations

import pytest
import test_measured
import torch
from simulated_gpu import SimulatedQueue
from test_measured import Backend, Problem
from torch import Tensor

from maskedconv.ops import dispatch, measured
from maskedconv.ops.dispatch import Operator

simulation = test_measured.simulation
rank = test_measured.rank


def test_nothing_is_timed(rank, monkeypatch):
    backends = {"reference": Backend(3.0), "cuda": Backend(1.0)}
    monkeypatch.setattr(SimulatedQueue, "capturing", True)
    assert rank(backends) is measured.UNMEASURED
    assert backends["cuda"].runs == 0


def test_a_ranking_on_disk_is_used(rank, monkeypatch):
    first = rank({"reference": Backend(3.0), "cuda": Backend(1.0)})
    assert first.names == ("cuda", "reference")
    backends = {"reference": Backend(3.0), "cuda": Backend(1.0)}
    monkeypatch.setattr(SimulatedQueue, "capturing", True)
    assert rank(backends) == first
    assert not any(backend.runs for backend in backends.values())


class OnGpu(Tensor):
    """A tensor that claims to be on a GPU."""

    is_cuda = True
    device = torch.device("cuda")


@pytest.fixture
def operator(simulation):
    backends = {"reference": Backend(3.0), "cuda": Backend(1.0)}
    for backend in backends.values():
        backend.simulation = simulation
    yield Operator("double", backends)
    dispatch.forget_decisions()


def test_a_decision_outlasts_the_capture_of_a_graph_and_one_made_in_it_does_not(
    operator, monkeypatch
):
    problem = Problem(torch.arange(1.0, 5).as_subclass(OnGpu))
    monkeypatch.setattr(SimulatedQueue, "capturing", True)
    assert dispatch.chosen_backend(operator, problem) is operator.backends["reference"]
    monkeypatch.setattr(SimulatedQueue, "capturing", False)
    assert dispatch.chosen_backend(operator, problem) is operator.backends["cuda"]
    runs = operator.backends["cuda"].runs
    assert runs > 0
    monkeypatch.setattr(SimulatedQueue, "capturing", True)
    assert dispatch.chosen_backend(operator, problem) is operator.backends["cuda"]
    assert operator.backends["cuda"].runs == runs
    torch.use_deterministic_algorithms(True)
    try:
        assert dispatch.chosen_backend(operator, problem) is operator.backends["reference"]
    finally:
        torch.use_deterministic_algorithms(False)
