"""The compiled module's functions of bn_statistics refuse invalid arguments."""

from __future__ import annotations

import copy

import pytest
import torch
from test_checked_arguments import AT, HUGE, refused
from torch import nn
from torch.nn import functional as F

from maskedconv.nn import bn_relu
from maskedconv.ops import bn_relu as bn_relu_operator
from maskedconv.ops import bn_statistics, native
from maskedconv.ops.bn_relu import Normalisation, NormProblem
from maskedconv.ops.bn_statistics import RunningStatistics, StatisticsProblem

pytestmark = pytest.mark.skipif(native.module() is None, reason=native.REASON)

STATISTICS = {
    "type": "float32", "x": (AT, 8), "pixels": 20, "channels": 5, "summand": (AT, 5),
    "total": (AT + 8192, 5), "state": (AT, AT, AT + 4096, AT + 4160, 0), "momentum": 0.1,
    "eps": 1e-3, "table": (AT + 6144, 5), "threads": 1,
}  # fmt: skip
OF_MOMENTS = {
    name: STATISTICS[name] for name in ("pixels", "channels", "state", "momentum", "eps", "table")
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "float64"}, "type is float64; expected float32, bfloat16 or float16"),
        ({"x": (0, 8)}, "x is a null pointer; expected 100 elements"),
        ({"x": (AT, 4)}, "x_pixel is 4; expected at least 5"),
        ({"x": (AT, HUGE)}, "x is larger than memory"),
        ({"summand": (AT, 4)}, "summand_pixel is 4; expected at least 5"),
        ({"total": (0, 5)}, "total is a null pointer; expected 100 elements"),
        ({"threads": 0}, "threads is 0; expected 1"),
    ],
    ids=["type", "null", "pitch", "size", "summand", "total", "threads"],
)
def test_bn_statistics_refuses(changes, message):
    refused("bn_statistics", STATISTICS, changes, message)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("bn_statistics", STATISTICS), ("bn_statistics_of_moments", OF_MOMENTS)],
)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": 1}, "pixels is 1; expected 2"),
        ({"channels": -1}, "channels is -1; expected 0"),
        ({"table": (0, 5)}, "table is a null pointer; expected 25 elements"),
        ({"state": (AT, AT, AT, 0, 0)}, "running mean and variance: one is null"),
        ({"momentum": -1.0}, "batches is null; expected their number"),
    ],
    ids=["pixels", "channels", "table", "running", "batches"],
)
def test_the_statistics_of_moments_refuse(name, arguments, changes, message):
    refused(name, arguments, changes, message)


NATIVE = bn_statistics.BACKENDS["native"]


def problem_of(**changes):
    """Statistics that move, of a channels_last input."""
    input = torch.randn(2, 5, 4, 3).contiguous(memory_format=torch.channels_last)
    parts = {name: torch.ones(5) for name in ("weight", "bias", "mean", "var")}
    parts |= {"batches": torch.tensor(0), "moments": torch.ones(2, 5), "out": torch.empty(5, 5)}
    parts |= changes
    running = RunningStatistics(*(parts[name] for name in ("mean", "var", "batches")), 0.1)
    return StatisticsProblem(
        input, parts["weight"], parts["bias"], 1e-3, running, parts["moments"], parts["out"]
    )


@pytest.mark.parametrize(
    "batches",
    [torch.tensor(0.0), torch.tensor(0, dtype=torch.int32), torch.zeros(0, dtype=torch.int64)],
    ids=["float32", "int32", "none"],
)
def test_kernels_count_batches_by_one_int64(batches):
    problem = problem_of(batches=batches)
    for reason in (NATIVE.cannot_run(problem), problem.why_refused(lambda tensor: "")):
        assert "one int64" in reason
    assert problem.kind() != problem_of().kind()


@pytest.mark.parametrize("size", [1, 4, 9])
def test_running_statistics_of_another_size(size):
    """Channels may have been pruned: PyTorch raises, and no kernel writes past their end."""
    bn = nn.BatchNorm2d(8)
    memory = torch.zeros(2, 16)
    bn.running_mean, bn.running_var = memory[0, :size], memory[1, :size]
    with pytest.raises(RuntimeError):
        bn_relu(torch.randn(2, 8, 5, 5).to(memory_format=torch.channels_last), bn)
    assert not memory.any()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batches_counted_as_floats(momentum):
    """``model.type(torch.float32)`` makes the count a float."""
    norm = nn.BatchNorm2d(5, momentum=momentum).type(torch.float32)
    plain, x = copy.deepcopy(norm), problem_of().input
    for _ in range(3):
        torch.testing.assert_close(bn_relu(x, norm), F.relu(plain(x)))
    assert norm.num_batches_tracked == 3
    torch.testing.assert_close(norm.state_dict(), plain.state_dict())


@pytest.mark.parametrize("part", ["weight", "bias", "mean", "var", "batches", "moments", "out"])
def test_tensors_of_the_norm_on_another_device(part):
    """A kernel would take their address for one of its own device."""
    problem = problem_of()
    assert not NATIVE.cannot_run(problem)
    value = getattr(problem.running if part in RunningStatistics._fields else problem, part)
    there = problem_of(**{part: value.to("meta")})
    assert "on meta" in NATIVE.cannot_run(there)
    assert there.kind() != problem.kind()


def test_statistics_on_another_device():
    norm = Normalisation(None, None, torch.ones(5, 5), 1e-3, False)
    problem = NormProblem(problem_of().input, norm)
    there = problem._replace(norm=norm._replace(statistics=torch.ones(5, 5, device="meta")))
    native_backend = bn_relu_operator.BACKENDS["native"]
    assert not native_backend.cannot_run(problem)
    assert "on meta" in native_backend.cannot_run(there)
    assert there.kind() != problem.kind()
