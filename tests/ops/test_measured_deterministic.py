"""The ranking under torch.use_deterministic_algorithms. Devices and clocks are stand-ins."""

from __future__ import annotations

import pytest
import test_measured
import torch
from simulated_gpu import SimulatedQueue
from test_measured import Backend

from maskedconv.ops import measured

simulation = test_measured.simulation
rank = test_measured.rank


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def deterministic_backend(*arguments, **options):
    backend = Backend(*arguments, **options)
    backend.DETERMINISTIC = True
    return backend


def test_deterministic_results_do_not_hang_on_timings(rank):
    backends = {"reference": Backend(3.0), "cuda": Backend(1.0)}
    assert rank(backends).names[0] == "cuda"
    torch.use_deterministic_algorithms(True)
    try:
        assert rank(backends).names == ("reference",)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_a_deterministic_kernel_is_checked_and_chosen_untimed(rank):
    backends = {
        "reference": Backend(3.0),
        "triton": Backend(1.0),
        "cuda": deterministic_backend(9.0),
    }
    ranking = rank(backends)
    assert ranking.names == ("cuda", "reference")
    assert "untimed" in ranking.reason
    assert [backend.runs for backend in backends.values()] == [1, 0, 1]


@pytest.mark.usefixtures("deterministic")
def test_a_deterministic_kernel_that_is_wrong_is_not_chosen(rank):
    wrong, refusing = deterministic_backend(1.0, error=0.5), deterministic_backend(1.0, refuses="x")
    with pytest.warns(UserWarning, match="the cuda kernel is off by"):
        ranking = rank({"reference": Backend(3.0), "cuda": wrong, "other": refusing})
    assert ranking.names == ("reference",)
    assert refusing.runs == 0


@pytest.mark.parametrize("refuses", ["", "it is not built"])
@pytest.mark.usefixtures("deterministic")
def test_a_substitute_is_checked_only_without_the_kernel_that_it_stands_for(rank, refuses):
    substitute = deterministic_backend(1.0)
    substitute.INSTEAD_OF = "cuda"
    cuda = deterministic_backend(9.0, refuses=refuses)
    ranking = rank({"reference": Backend(3.0), "cuda": cuda, "triton": substitute})
    assert ranking.names == ("triton" if refuses else "cuda", "reference")
    assert bool(substitute.runs) == bool(refuses)


@pytest.mark.usefixtures("deterministic")
def test_nothing_is_checked_while_a_graph_is_captured(rank, monkeypatch):
    backends = {"reference": Backend(3.0), "cuda": deterministic_backend(1.0)}
    monkeypatch.setattr(SimulatedQueue, "capturing", True)
    assert rank(backends) is measured.UNMEASURED
    assert backends["cuda"].runs == 0
