"""The measured ranking: timing, checks and caching, with simulated devices and clocks."""

from __future__ import annotations

import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from precision import assert_as_exact
from simulated_gpu import SimulatedQueue, Simulation
from test_weight_grad import SHAPES, expected_of, make_problem
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maskedconv.ops import dispatch, measured, timing
from maskedconv.ops.dispatch import Operator
from maskedconv.ops.kinds import describe_cuda
from maskedconv.ops.ranking_cache import RankingCache

# The package has the operator by this name.
weight_grad = sys.modules["maskedconv.ops.weight_grad"]

ENVIRONMENT = {"gpu": "a simulated one"}


class Problem(NamedTuple):
    values: Tensor
    backend: str = ""

    def tensors(self):
        return (self.values,)

    def kind(self):
        return describe_cuda(self.values)


class Backend:
    """Doubles the values and adds an error; takes the given time on the GPU and in Python."""

    DEVICES = ("cuda",)

    def __init__(self, milliseconds, error=0.0, refuses="", raises=None, python=0.1):
        self.milliseconds, self.error, self.refuses = milliseconds, error, refuses
        self.raises, self.python = raises, python
        self.simulation = None
        self.runs = 0

    def cannot_run(self, problem):
        return self.refuses

    def run(self, problem):
        self.runs += 1
        if self.raises is not None:
            raise self.raises
        self.simulation.ask(self.python, self.milliseconds)
        return problem.values * 2 + self.error


@pytest.fixture(autouse=True)
def simulation(monkeypatch, tmp_path):
    simulation = Simulation()
    cache = RankingCache(tmp_path / "cache" / "rankings.json", ENVIRONMENT)
    monkeypatch.setattr(timing, "perf_counter", simulation.perf_counter)
    monkeypatch.setattr(measured, "CudaQueue", lambda device: SimulatedQueue(simulation))
    monkeypatch.setattr(measured, "cache_for", lambda device: cache)
    monkeypatch.setattr(dispatch, "_operators", dispatch._operators.copy())
    return simulation


@pytest.fixture
def rank(simulation):
    def rank(backends, values=None, otherwise=None):
        for backend in backends.values():
            backend.simulation = simulation
        values = torch.arange(1.0, 5) if values is None else values
        operator = Operator("double", backends, timed_reference=otherwise)
        return measured.ranking(operator, backends, Problem(values))

    return rank


def test_the_fastest_comes_first_and_is_measured_once(rank):
    backends = {"reference": Backend(3.0), "triton": Backend(1.0), "cuda": Backend(2.0)}
    ranking = rank(backends)
    assert ranking.names == ("triton", "cuda", "reference")
    assert ranking.reason == (
        "the fastest when timed: triton 1.000 ms, cuda 2.000 ms, reference 3.000 ms"
    )
    runs = backends["cuda"].runs
    assert rank(backends) == ranking
    assert backends["cuda"].runs == runs
    rank(backends, torch.arange(1.0, 6))
    assert backends["cuda"].runs > runs


def test_pythons_time_does_not_count(rank):
    backends = {"reference": Backend(0.05, python=0.01), "triton": Backend(0.02, python=2.0)}
    assert rank(backends).names == ("triton", "reference")


def test_other_alignment_is_another_kind(rank):
    backends = {"reference": Backend(3.0), "cuda": Backend(1.0)}
    wide = torch.arange(1.0, 9)
    rank(backends, wide[:4])
    runs = backends["cuda"].runs
    rank(backends, wide[1:5])
    assert backends["cuda"].runs > runs


def test_the_reference_is_timed_as_the_caller_would_run_it(rank, simulation):
    backends = {"reference": Backend(3.0), "cuda": Backend(2.0)}

    def otherwise(problem):
        simulation.ask(0.1, 1.0)
        return problem.values * 2

    assert rank(backends, otherwise=otherwise).names == ("reference", "cuda")


def test_what_cannot_run_is_not_tried(rank):
    backends = {"reference": Backend(3.0), "native": Backend(1.0, refuses="for the CPU")}
    assert rank(backends).names == ("reference",)
    assert backends["native"].runs == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Backend(1.0, error=0.5), "cuda kernel is off by 0.5 where values reach 8"),
        (Backend(1.0, error=float("nan")), "is off by nan"),
        (Backend(1.0, error=torch.zeros(2, 1)), r"gives the shape \(2, 4\), not \(4,\)"),
        (Backend(1.0, raises=RuntimeError("no such launch")), "RuntimeError: no such launch"),
    ],
)
def test_a_wrong_kernel_is_named_and_left_out_in_every_process(rank, wrong, message):
    for _ in range(2):
        with pytest.warns(UserWarning, match=message):
            ranking = rank({"reference": Backend(3.0), "cuda": wrong})
        assert ranking.names == ("reference",)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0], ids=str)
def test_a_kernel_is_checked_where_the_result_tells_nothing(rank, value):
    """A kernel that is wrong by a factor, which NaN or zeros would hide."""

    class Wrong(Backend):
        def run(self, problem):
            return super().run(problem) * 1.5

    values = torch.full((4,), value)
    with pytest.warns(UserWarning, match="cuda kernel is off by"):
        assert rank({"reference": Backend(3.0), "cuda": Wrong(1.0)}, values).names == ("reference",)
    in_order = rank({"reference": Backend(3.0), "cuda": Backend(1.0)}, values.repeat(2))
    assert in_order.names == ("cuda", "reference")


def test_stand_ins_have_the_strides_and_alignment_of_the_problem():
    state = torch.get_rng_state()
    tensor = torch.zeros(3, 7, 5, 5).to(memory_format=torch.channels_last)[:, 1:4]
    other = measured._random_like(tensor)
    assert (other.shape, other.stride()) == (tensor.shape, tensor.stride())
    assert other.data_ptr() % 16 == tensor.data_ptr() % 16
    assert other.std() > 0.5
    assert torch.equal(torch.get_rng_state(), state)


def test_a_later_process_takes_the_same_ranking_untimed(rank):
    first = rank({"reference": Backend(3.0), "triton": Backend(1.0), "cuda": Backend(2.0)})
    backends = {"reference": Backend(3.0), "triton": Backend(2.0), "cuda": Backend(1.0)}
    assert rank(backends) == first
    assert not any(backend.runs for backend in backends.values())


def test_a_folder_that_cannot_be_written_is_named_in_the_reason(rank, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    cache = RankingCache(tmp_path / "file" / "rankings.json", ENVIRONMENT)
    monkeypatch.setattr(measured, "cache_for", lambda device: cache)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranking = rank({"reference": Backend(3.0), "cuda": Backend(1.0)})
    assert ranking.names == ("cuda", "reference")
    assert "not cached on disk: " in ranking.reason


class LargestFloat32(TorchDispatchMode):
    """The largest number of values in a float32 result of an operator."""

    values = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple) else (result,):
            if isinstance(value, Tensor) and value.dtype == torch.float32:
                self.values = max(self.values, value.numel())
        return result


@pytest.mark.parametrize("run", [weight_grad.reference.run, weight_grad._after_activation])
def test_the_reference_does_not_compute_the_activation_in_float32(run):
    problem = make_problem(
        SHAPES["3x3"], 16, 4, (12, 12), batch=8, dtype=torch.bfloat16, prologue=True
    )
    with LargestFloat32() as largest:
        grad = run(problem)
    assert largest.values < problem.input.numel()
    plain = expected_of(problem, torch.bfloat16)
    assert_as_exact([grad], [plain], [expected_of(problem)], dtype=torch.bfloat16)


TWO_RANKS = """
import sys, time
from pathlib import Path
from maskedconv.ops.ranking_cache import Ranking, RankingCache

cache, backends = RankingCache(Path(sys.argv[1]) / "rankings.json", {}), ["reference", "cuda"]
found = cache.find("kind", backends)
if found is None:
    print("measures", flush=True)
    sys.stdin.readline()
    names = ("cuda", "reference") if sys.argv[2] == "0" else ("reference",)
    found = cache.add("kind", Ranking(names, "timed"), backends)
print(*found.names)
"""


def test_no_process_waits_for_another_that_measures_and_all_take_one_choice(tmp_path):
    """A rank that waits could not answer a collective operation of the one that measures."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RANKS, tmp_path, str(rank)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [process.stdout.readline() for process in ranks] == ["measures\n"] * 2
    first = ranks[0].communicate("\n", timeout=600)[0]
    second = ranks[1].communicate("\n", timeout=600)[0]
    assert first == second == "cuda reference\n"


def test_only_the_current_stream_is_waited_for(monkeypatch):
    def wait_for_all(*_):
        raise AssertionError("another rank's turn would be waited for")

    waited = []
    stream = SimpleNamespace(synchronize=lambda: waited.append("stream"))
    monkeypatch.setattr(torch.cuda, "synchronize", wait_for_all)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    timing.CudaQueue(torch.device("cuda", 0)).synchronize()
    assert waited == ["stream"]
