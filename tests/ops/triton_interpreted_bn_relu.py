"""bn_relu's Triton kernels in Triton's interpreter; test_triton.py runs this in its own process.

The interpreter truncates where a GPU rounds to bfloat16.
"""

from __future__ import annotations

import pytest
import torch
from exact import assert_same
from test_bn_relu import expected_of, make_problem

from maskedconv.ops import triton_runtime
from maskedconv.ops.bn_relu import BackwardMemory, NormProblem, triton
from maskedconv.ops.bn_statistics import RunningStatistics, StatisticsProblem, reference
from maskedconv.ops.bn_statistics import triton as statistics

assert triton_runtime.interpreted(), "set TRITON_INTERPRET=1 before Python starts"

ALL = (True, True, True)
# Relative to the largest element: roundings of float32 sums, two of a stored 16-bit number.
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-9}
# More pixels than a part has, more channels than a block, a single pixel for each image.
SHAPES = [(3, 19, 7, 5), (2, 70, 40, 60), (5, 1, 3, 4), (6, 130, 1, 1)]


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """Uninitialised memory starts as NaN, so that unwritten elements are detected."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def problem_of(shape, surplus, uses_batch_stats, dtype):
    """The other channels of the wider tensor are NaN."""
    problem = make_problem(shape, 0, uses_batch_stats=uses_batch_stats)
    batch, channels, rows, columns = shape
    wide = torch.full((batch, channels + surplus, rows, columns), float("nan"), dtype=dtype)
    input = wide.contiguous(memory_format=torch.channels_last)[:, :channels]
    input.copy_(problem.input)
    norm = problem.norm
    if uses_batch_stats:
        var, mean = torch.var_mean(input.float(), (0, 2, 3), correction=0)
        norm = type(norm).of_moments(norm.weight, norm.bias, (mean, var), norm.eps, True)
    return NormProblem(input, norm)


def close(found, expected, dtype, scale=0.0):
    """``scale``: magnitude of the terms of a sum, which may cancel."""
    assert found.shape == expected.shape
    limit = max(float(expected.abs().max()), float(scale), 1.0) * TOLERANCES[dtype]
    assert_same(found.double(), expected.double(), limit)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("surplus", [0, 5], ids=["dense", "view"])
@pytest.mark.parametrize("uses_batch_stats", [False, True], ids=["constants", "batch"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_backward(shape, uses_batch_stats, surplus, dtype):
    problem = problem_of(shape, surplus, uses_batch_stats, dtype)
    grad = torch.randn(shape).to(dtype)
    result, (grad_input, grad_weight, grad_bias) = expected_of(problem, grad)
    close(triton.run(problem), result, dtype)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = grad.contiguous(memory_format=layout)
        found = triton.run_backward(problem, given.clone(), ALL)
        close(found[0], grad_input, dtype)
        terms = 10 * len(grad.flatten()) ** 0.5
        close(found[1], grad_weight, torch.float32, terms)
        close(found[2], grad_bias, torch.float32, terms)


@pytest.mark.parametrize("uses_batch_stats", [False, True], ids=["constants", "batch"])
def test_memory_for_the_gradient(uses_batch_stats):
    problem = problem_of((3, 19, 7, 5), 0, uses_batch_stats, torch.float32)
    grad = torch.randn_like(problem.input)
    _, (expected, *_) = expected_of(problem, grad)
    given = grad.clone(memory_format=torch.preserve_format)
    assert triton.run_backward(problem, given, ALL, BackwardMemory(in_place=True))[0] is given
    close(given, expected, torch.float32)
    whole = torch.randn(3, 24, 7, 5).to(memory_format=torch.channels_last)
    before = whole.clone()
    triton.run_backward(problem, grad, ALL, BackwardMemory(added_to=whole[:, :19]))
    close(whole[:, :19], before[:, :19] + expected, torch.float32)
    assert torch.equal(whole[:, 19:], before[:, 19:])
    memory = BackwardMemory(added=before[:, :19])
    close(triton.run_backward(problem, grad, ALL, memory)[0], whole[:, :19], torch.float32)


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False,) * 3])
@pytest.mark.parametrize("uses_batch_stats", [False, True], ids=["constants", "batch"])
def test_what_is_not_needed_is_none(needs, uses_batch_stats):
    problem = problem_of((2, 9, 4, 4), 0, uses_batch_stats, torch.float32)
    found = triton.run_backward(problem, torch.randn_like(problem.input), needs)
    assert tuple(part is not None for part in found) == needs


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite(value):
    problem = problem_of((2, 16, 4, 4), 0, False, torch.float32)
    problem.input[1, 3, 2, 1] = value
    grad = torch.randn_like(problem.input)
    result, grads = expected_of(problem, grad)
    assert_same(triton.run(problem).double(), result, 1e-5)
    for found, expected in zip(triton.run_backward(problem, grad, ALL), grads, strict=True):
        assert_same(found.double(), expected, 2e-5)
    moments = statistics.run(StatisticsProblem(problem.input, None, None, 1e-3))[:2]
    finite = torch.arange(16) != 3
    assert not moments[1, 3].isfinite()
    assert moments[:, finite].isfinite().all()


def running_of(channels, momentum):
    return RunningStatistics(torch.zeros(channels), torch.ones(channels), torch.tensor(3), momentum)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_statistics(shape, dtype, affine, momentum):
    problem = problem_of(shape, 3, True, dtype)
    weight, bias = problem.norm[:2] if affine else (None, None)
    ours, theirs = (running_of(shape[1], momentum) for _ in range(2))
    found = statistics.run(StatisticsProblem(problem.input, weight, bias, 1e-3, ours))
    expected = reference.run(StatisticsProblem(problem.input.double(), weight, bias, 1e-3, theirs))
    assert found.dtype == torch.float32
    for row, right in zip(found, expected, strict=True):
        close(row, right, torch.float32)
    for part, right in zip(ours[:3], theirs[:3], strict=True):
        close(part, right, torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_statistics_of_a_sum(shape, dtype):
    problem = problem_of(shape, 3, True, dtype)
    summand = torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)
    total = torch.full_like(problem.input, torch.nan)
    found = statistics.run(
        StatisticsProblem(problem.input, None, None, 1e-3, summand=summand, total=total)
    )
    # The interpreter cuts bfloat16 off, and does not round it.
    close(total, problem.input.double() + summand.double(), dtype)
    expected = reference.run(StatisticsProblem(total.double(), None, None, 1e-3))
    for row, right in zip(found, expected, strict=True):
        close(row, right, torch.float32)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_of_known_moments(momentum):
    problem = problem_of((3, 24, 5, 4), 8, True, torch.float32)
    moments = torch.full((5, 40), torch.nan)[:, 4:28]
    moments[:2] = problem.norm.statistics[:2]
    wide = torch.full((5, 40), torch.nan)
    results, runs = [], [running_of(24, momentum) for _ in range(2)]
    for backend, running in zip((statistics, reference), runs, strict=True):
        known = StatisticsProblem(
            problem.input, *problem.norm[:2], 1e-3, running, moments[:2], out=wide[:, 3:27]
        )
        results.append(backend.run(known).clone())
    close(results[0], results[1], torch.float32)
    for part, right in zip(runs[0][:3], runs[1][:3], strict=True):
        close(part, right, torch.float32)
    assert wide[:, :3].isnan().all()
    assert wide[:, 27:].isnan().all()


def test_variance_beside_a_large_mean():
    x = (torch.randn(4, 24, 40, 40) + 1000).contiguous(memory_format=torch.channels_last)
    found = statistics.run(StatisticsProblem(x, None, None, 0.0))
    var, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    assert_same(found[0].double(), mean, 1e-4)
    assert_same(found[1].double(), var, 1e-4)


def test_results_repeat():
    problem = problem_of((5, 40, 17, 13), 0, True, torch.float32)
    grad = torch.randn_like(problem.input)
    first, again = (triton.run_backward(problem, grad, ALL) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
