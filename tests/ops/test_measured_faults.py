"""Kernels that are excluded from the ranking: wrong outputs, memory, and a lost GPU."""

from __future__ import annotations

import warnings

import pytest
import test_bn_relu
import test_measured
import torch
from simulated_gpu import SimulatedQueue
from test_measured import Backend

from maskedconv.ops import measured
from maskedconv.ops.bn_relu import BACKWARD, FORWARD
from maskedconv.ops.bn_statistics import OF_SUM, OPERATOR, StatisticsProblem

simulation = test_measured.simulation
rank = test_measured.rank


def test_memory_that_does_not_suffice_is_no_fault_and_is_not_remembered_on_disk(rank):
    cuda = Backend(1.0, raises=torch.OutOfMemoryError("CUDA out of memory"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranking = rank({"reference": Backend(3.0), "cuda": cuda})
    assert ranking.names == ("reference",)
    assert "cuda was not checked, as memory did not suffice" in ranking.reason
    cuda.raises = None
    assert rank({"reference": Backend(3.0), "cuda": cuda}).names == ("cuda", "reference")


def test_the_reference_alone_may_be_too_large_to_compare(rank):
    reference = Backend(3.0, raises=torch.OutOfMemoryError("CUDA out of memory"))
    ranking = rank({"reference": reference, "cuda": Backend(1.0)})
    assert ranking.names == ("reference",)
    assert "memory did not suffice" in ranking.reason
    reference.raises = None
    assert rank({"reference": reference, "cuda": Backend(1.0)}).names == ("cuda", "reference")


def test_the_kernel_that_loses_the_gpu_is_named_and_no_other_is_tried(rank, monkeypatch):
    def lost(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    class Sticky(Backend):
        def run(self, problem):
            monkeypatch.setattr(SimulatedQueue, "synchronize", lost)
            lost(None)

    backends = {"reference": Backend(3.0), "triton": Sticky(1.0), "cuda": Backend(1.0)}
    with pytest.raises(RuntimeError, match="the triton kernel left the GPU unusable") as raised:
        rank(backends)
    assert "illegal memory access" in str(raised.value.__cause__)
    assert backends["cuda"].runs == 0


def test_memory_that_a_kernel_does_not_write_is_noticed(rank):
    class Silent(Backend):
        def run(self, problem):
            super().run(problem)
            return torch.empty_like(problem.values)

    with pytest.warns(UserWarning, match="cuda kernel is off by nan"):
        rank({"reference": Backend(3.0), "cuda": Silent(1.0)})


def test_a_sum_that_a_kernel_does_not_write_is_noticed(simulation):
    """The reference has written it to the same memory before."""
    reference = OF_SUM.backends["reference"]

    class NoSum(Backend):
        def run(self, problem):
            return reference.run(problem._replace(total=torch.empty_like(problem.input)))

    problem = StatisticsProblem(torch.randn(4, 8, 5, 5), None, None, 1e-3)
    problem = problem._replace(summand=torch.randn(4, 8, 5, 5))
    kernel = NoSum(1.0)
    kernel.simulation = simulation
    backends = {"reference": reference, "cuda": kernel}
    with pytest.warns(UserWarning, match="in the sum"):
        ranking = measured.ranking(OF_SUM, backends, problem)
    assert ranking.names == ("reference",)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_normalisation_without_effect_is_checked_with_another(simulation, weight):
    """A block that ends in a γ of 0: all gradients of its input are 0."""
    problem = test_bn_relu.make_problem((4, 8, 5, 5))
    norm = problem.norm.of_moments(
        torch.full((8,), weight), torch.zeros(8), problem.norm.moments(), 1e-3, True
    )
    problem = problem._replace(norm=norm, grad=torch.randn(4, 8, 5, 5))
    reference = BACKWARD.backends["reference"]

    class NoInput(Backend):
        def run_backward(self, problem, grad, needs):
            grad, *others = reference.run_backward(problem, grad, needs)
            return torch.zeros_like(grad), *others

    backends = {"reference": reference, "wrong": NoInput(1.0), "right": reference}
    with pytest.warns(UserWarning, match="the wrong kernel is off by .* in grad_input"):
        ranking = measured.ranking(BACKWARD, backends, problem)
    assert set(ranking.names) == {"reference", "right"}


def test_a_substitute_is_not_tried_beside_the_kernel_that_it_stands_for(rank):
    substitute = Backend(1.0)
    substitute.INSTEAD_OF = "cuda"
    backends = {"reference": Backend(3.0), "cuda": Backend(5.0), "triton": substitute}
    assert rank(backends).names == ("reference", "cuda")
    assert substitute.runs == 0


@pytest.mark.parametrize(
    "cuda", [Backend(1.0, error=0.5), Backend(1.0, refuses="it is not built")], ids=["wrong", "no"]
)
@pytest.mark.filterwarnings("ignore::maskedconv.ops.measured.WrongKernel")
def test_a_substitute_runs_where_the_kernel_that_it_stands_for_does_not(rank, cuda):
    substitute = Backend(2.0)
    substitute.INSTEAD_OF = "cuda"
    ranking = rank({"reference": Backend(3.0), "cuda": cuda, "triton": substitute})
    assert ranking.names == ("triton", "reference")


@pytest.mark.parametrize("operator", [FORWARD, BACKWARD, OPERATOR, OF_SUM], ids=lambda op: op.name)
def test_triton_stands_for_cuda_in_the_operators_of_batch_norm(operator):
    """To compile and time both takes seconds for each kind of problem."""
    backends = operator.backends
    substitutes = {name: getattr(b, "INSTEAD_OF", None) for name, b in backends.items()}
    assert {name for name, other in substitutes.items() if other} == {"triton"}
    assert substitutes["triton"] == "cuda"
    assert list(backends).index("cuda") < list(backends).index("triton")
