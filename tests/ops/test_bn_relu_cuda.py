"""bn_relu's CUDA kernels, compiled for the CPU (csrc/common/emulation), against float64."""

from __future__ import annotations

from types import SimpleNamespace

import emulation
import pytest
import torch
from exact import assert_same
from pretended_gpu import LIMITS
from test_bn_relu import expected_of, make_problem
from test_checked_arguments import check_batch_norm_of_other_channels

from maskedconv.ops import native
from maskedconv.ops.bn_relu import BackwardMemory, cuda
from maskedconv.ops.bn_statistics import RunningStatistics, StatisticsProblem, reference
from maskedconv.ops.bn_statistics import cuda as statistics_cuda

pytestmark = [
    pytest.mark.skipif(
        emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
    ),
    pytest.mark.usefixtures("pretended_gpu"),
]
ALL = (True, True, True)
# Errors of float32 sums, and of one rounding to the type.
TOLERANCES = {torch.float32: 3e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
# [N, C, H, W] and the channels of a wider tensor that are left out.
SHAPES = {
    "64 channels": ((3, 64, 8, 8), 0),
    "first 24 of 40": ((2, 24, 5, 7), 16),
    "odd": ((3, 13, 5, 4), 3),
    "two tiles": ((2, 72, 4, 4), 0),
    "many channels": ((2, 456, 3, 3), 8),
    "one channel": ((4, 1, 9, 9), 0),
    "one pixel an image": ((70, 16, 1, 1), 0),
    "many pixels": ((5, 12, 33, 31), 4),
}
SHAPE_ITEMS = [pytest.param(*case, id=name) for name, case in SHAPES.items()]


def rounded(problem, dtype):
    """The problem with its input rounded to ``dtype``, in the same layout."""
    norm, wide = problem.norm, problem.input._base
    input = wide.to(dtype)[:, : problem.input.size(1)]
    if norm.uses_batch_stats:
        var, mean = torch.var_mean(input.double(), (0, 2, 3), correction=0)
        norm = norm.of_moments(*norm[:2], (mean.float(), var.float()), norm.eps, True)
    return problem._replace(input=input, norm=norm)


def close(found, expected, dtype, scale=None):
    """``scale``: magnitude of the terms of a sum, which may cancel."""
    scale = float(expected.abs().max()) if scale is None else float(scale)
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=2 * TOLERANCES[dtype],
        atol=TOLERANCES[dtype] * scale,
    )  # fmt: skip


def check_gradients(problem, grad, found, grads):
    """Checks the gradients of the input, γ and β; None is skipped."""
    terms = grad.double().abs().sum((0, 2, 3)).max()
    scales = (None, terms, terms)
    types = (problem.input.dtype, torch.float32, torch.float32)
    for value, expected, dtype, scale in zip(found, grads, types, scales, strict=True):
        if value is not None:
            close(value, expected, dtype, scale)


def check_results(problem, grad, results):
    """Checks the results of ``BNReluEmulation.run`` against float64."""
    double = problem.input.double()
    affine = (None if part is None else part.double() for part in problem.norm[:2])
    running = RunningStatistics(
        torch.zeros(double.size(1)).double(), torch.ones(double.size(1)).double(), None, 0.1
    )
    expected = reference.run(StatisticsProblem(double, *affine, 1e-3, running))
    for found in (results.statistics, results.of_moments):
        for row, right in zip(found, expected, strict=True):
            close(row, right, torch.float32)
    close(results.mean, running.mean, torch.float32)
    close(results.var, running.var, torch.float32)
    result, grads = expected_of(problem, grad)
    close(results.forward, result, problem.input.dtype)
    for added in (results.added_to, results.added):
        close(added, grads[0] + grad.double(), problem.input.dtype)
    total = problem.input + grad
    assert torch.equal(results.total, total)
    affine = (None if part is None else part.double() for part in problem.norm[:2])
    expected = reference.run(StatisticsProblem(total.double(), *affine, 1e-3))
    for row, right in zip(results.of_sum, expected, strict=True):
        close(row, right, torch.float32)
    check_gradients(problem, grad, results[-3:], grads)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("shape", "surplus"), SHAPE_ITEMS)
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_statistics(shape, surplus, affine, dtype):
    problem = rounded(make_problem(shape, surplus, affine), dtype)
    weight, bias = problem.norm[:2]
    runs = [
        RunningStatistics(torch.zeros(shape[1]), torch.ones(shape[1]), torch.tensor(3), momentum)
        for momentum in (0.1, 0.1, None, None)
    ]
    for ours, theirs in (runs[:2], runs[2:]):
        found = statistics_cuda.run(StatisticsProblem(problem.input, weight, bias, 1e-3, ours))
        double = StatisticsProblem(
            problem.input.double(), weight if weight is None else weight.double(),
            bias if bias is None else bias.double(), 1e-3, theirs,
        )  # fmt: skip
        expected = reference.run(double)
        assert found.dtype == torch.float32
        for row, right in zip(found, expected, strict=True):
            close(row, right, torch.float32)
        for part, right in zip(ours[:2], theirs[:2], strict=True):
            close(part, right, torch.float32)
        assert int(ours.batches) == int(theirs.batches) == 4


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("shape", "surplus"), SHAPE_ITEMS)
def test_statistics_of_a_sum(shape, surplus, dtype):
    problem = rounded(make_problem(shape, surplus), dtype)
    wide = torch.randn(shape[0], shape[1] + 8, *shape[2:]).to(dtype)
    summand = wide.to(memory_format=torch.channels_last)[:, : shape[1]]
    total = torch.full_like(problem.input, torch.nan)
    running = RunningStatistics(torch.zeros(shape[1]), torch.ones(shape[1]), torch.tensor(3), 0.1)
    weight, bias = problem.norm[:2]
    found = statistics_cuda.run(
        StatisticsProblem(problem.input, weight, bias, 1e-3, running, summand=summand, total=total)
    )
    assert torch.equal(total, problem.input + summand)
    expected = reference.run(StatisticsProblem(total.double(), weight, bias, 1e-3))
    for row, right in zip(found, expected, strict=True):
        close(row, right, torch.float32)
    close(running.mean, 0.1 * expected[0], torch.float32)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_of_known_moments(momentum):
    problem = make_problem((3, 24, 5, 4), 8)
    weight, bias = problem.norm[:2]
    moments = problem.norm.statistics[:2].clone()
    runs = [
        RunningStatistics(torch.zeros(24), torch.ones(24), torch.tensor(3), momentum)
        for _ in range(2)
    ]
    wide = torch.full((5, 40), torch.nan)
    results = []
    for backend, running in zip((statistics_cuda, reference), runs, strict=True):
        known = StatisticsProblem(
            problem.input, weight, bias, 1e-3, running, moments, out=wide[:, 3:27]
        )
        results.append(backend.run(known).clone())
    close(results[0], results[1], torch.float32)
    for part, right in zip(runs[0][:3], runs[1][:3], strict=True):
        close(part, right, torch.float32)
    assert wide[:, :3].isnan().all()
    assert wide[:, 27:].isnan().all()


@pytest.mark.parametrize("known", [False, True], ids=["of pixels", "of moments"])
def test_a_mean_over_batches_that_are_not_counted_stays(known):
    problem = make_problem((3, 24, 5, 4))
    running = RunningStatistics(torch.zeros(24), torch.ones(24), None, None)
    moments = problem.norm.statistics[:2].clone() if known else None
    statistics_cuda.run(StatisticsProblem(problem.input, None, None, 1e-3, running, moments))
    assert torch.equal(running.mean, torch.zeros(24))
    assert torch.equal(running.var, torch.ones(24))


def test_variance_beside_a_large_mean():
    x = (torch.randn(4, 24, 6, 6) + 1000).contiguous(memory_format=torch.channels_last)
    found = statistics_cuda.run(StatisticsProblem(x, None, None, 0.0))
    var, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    assert_same(found[0].double(), mean, 1e-7)
    assert_same(found[1].double(), var, 1e-4)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("shape", "surplus"), SHAPE_ITEMS)
@pytest.mark.parametrize("uses_batch_stats", [False, True], ids=["constants", "batch"])
def test_forward_and_backward(shape, surplus, uses_batch_stats, dtype):
    problem = rounded(make_problem(shape, surplus, uses_batch_stats=uses_batch_stats), dtype)
    wide = torch.randn(shape[0], shape[1] + surplus, *shape[2:]).to(dtype)
    for grad in (wide.to(memory_format=torch.channels_last)[:, : shape[1]], wide[:, : shape[1]]):
        result, grads = expected_of(problem, grad)
        close(cuda.run(problem), result, dtype)
        given = grad.clone(memory_format=torch.preserve_format)
        found = cuda.run_backward(problem, given, ALL)
        assert torch.equal(given, grad)
        check_gradients(problem, grad, found, grads)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("uses_batch_stats", [False, True], ids=["constants", "batch"])
def test_the_gradient_is_added_to_other_memory(uses_batch_stats, dtype):
    problem = rounded(make_problem((2, 20, 9, 7), 4, uses_batch_stats=uses_batch_stats), dtype)
    grad = torch.randn_like(problem.input)
    whole = torch.randn(2, 24, 9, 7).to(dtype).to(memory_format=torch.channels_last)
    before = whole.clone()
    memory = BackwardMemory(added_to=whole[:, :20])
    found = cuda.run_backward(problem, grad, ALL, memory)
    assert found[0] is memory.added_to
    _, grads = expected_of(problem, grad)
    close(found[0], before[:, :20].double() + grads[0], dtype)
    assert torch.equal(whole[:, 20:], before[:, 20:])


@pytest.mark.parametrize("needs", torch.eye(3, dtype=torch.bool).tolist(), ids=str)
@pytest.mark.parametrize("uses_batch_stats", [False, True], ids=["constants", "batch"])
def test_what_is_not_needed_is_none(needs, uses_batch_stats):
    problem = make_problem((2, 24, 4, 4), uses_batch_stats=uses_batch_stats)
    grad = torch.randn_like(problem.input)
    _, grads = expected_of(problem, grad)
    found = cuda.run_backward(problem, grad.clone(), needs, BackwardMemory(in_place=True))
    assert tuple(value is not None for value in found) == tuple(needs)
    check_gradients(problem, grad, found, grads)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite(value):
    problem = make_problem((2, 16, 4, 4), uses_batch_stats=False)
    problem.input[1, 3, 2, 1] = value
    grad = torch.randn_like(problem.input)
    result, grads = expected_of(problem, grad)
    assert_same(cuda.run(problem), result, 2e-5)
    for found, expected in zip(cuda.run_backward(problem, grad, ALL), grads, strict=True):
        assert_same(found, expected, 2e-5)
    moments = statistics_cuda.run(StatisticsProblem(problem.input, None, None, 1e-3))[:2]
    finite = torch.arange(16) != 3
    assert not moments[:, 3].isfinite().any() or not moments[1, 3].isfinite()
    assert moments[:, finite].isfinite().all()


def test_results_repeat():
    problem = make_problem((5, 40, 17, 13))
    grad = torch.randn_like(problem.input)
    for run in (
        lambda: (statistics_cuda.run(StatisticsProblem(problem.input, None, None, 1e-3)),),
        lambda: cuda.run_backward(problem, grad, ALL),
    ):
        assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_a_launch_of_many_blocks_uses_its_workspace(emulated_module):
    """Otherwise no test would see how blocks are joined."""
    assert emulated_module.bn_relu_cuda_workspace(5 * 33 * 31, 12, LIMITS[0])[0] > 25


PIXELS = {"type": "float32", "pixels": 8, "channels": 4}
AT, ROWS = (64, 4), (64, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "float64"}, "type is float64; expected float32, bfloat16 or float16"),
        ({"pixels": 0}, "pixels is 0"),
        ({"channels": 0}, "channels is 0"),
        ({"x": (0, 4)}, "x is a null pointer"),
        ({"x": (64, 3)}, "x has pixels 3 elements apart; expected at least 4"),
        ({"statistics": (0, 4)}, "statistics is a null pointer"),
        ({"out": (64, -1)}, "out has a stride of -1"),
        ({"multiprocessors": 0}, "multiprocessors is 0"),
    ],
    ids=str,
)
def test_the_module_refuses(emulated_module, changes, message):
    arguments = {
        **PIXELS,
        "x": AT,
        "statistics": ROWS,
        "out": AT,
        "multiprocessors": 2,
        "stream": 0,
    }
    with pytest.raises(ValueError, match=f"^bn_relu_cuda: {message}"):
        emulated_module.bn_relu_cuda(*{**arguments, **changes}.values())


def test_what_the_backend_does_not_take(monkeypatch):
    problem = make_problem((2, 4, 3, 3))
    assert "the input is on cpu" in cuda.cannot_run(problem)
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0), raising=False)
    assert cuda.cannot_run(problem) == ""
    strided = problem._replace(input=torch.randn(2, 4, 3, 3))
    assert "channels side by side" in cuda.cannot_run(strided)
    assert "float64" in cuda.cannot_run(problem._replace(input=problem.input.double()))
    empty = problem._replace(input=problem.input[:0])
    assert "nothing to compute" in cuda.cannot_run(empty)
    monkeypatch.setattr(native, "module", lambda: SimpleNamespace())
    assert "without CUDA" in cuda.cannot_run(problem)


def test_a_batch_norm_of_other_channels():
    check_batch_norm_of_other_channels("cuda")
