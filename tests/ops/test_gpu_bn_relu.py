"""On a GPU: the kernels of BatchNorm and ReLU against float64, and whether they repeat.

Skipped if there is none; ``make gpu-check`` runs it.
"""

from __future__ import annotations

import pytest
import torch
from precision import assert_as_exact
from test_bn_relu import expected_of, make_problem

from maskedconv.ops.bn_relu import BACKENDS, NormProblem
from maskedconv.ops.bn_statistics import BACKENDS as STATISTICS
from maskedconv.ops.bn_statistics import RunningStatistics, StatisticsProblem

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

ALL = (True, True, True)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# [N, C, H, W] and the channels of a wider tensor that are left out.
SHAPES = {
    "160@32": ((128, 160, 32, 32), 0),
    "640@8": ((128, 640, 8, 8), 0),
    "first 204 of 300@32": ((64, 204, 32, 32), 96),
    "48@32": ((64, 48, 32, 32), 0),
    "odd": ((3, 13, 5, 4), 3),
    "one channel": ((4, 1, 9, 9), 0),
}
SHAPE_ITEMS = [pytest.param(*case, id=name) for name, case in SHAPES.items()]


def on_gpu(problem, dtype):
    """The problem on the GPU, with its input rounded to ``dtype``."""
    norm, wide = problem.norm, problem.input._base.to(dtype).cuda()
    input = wide[:, : problem.input.size(1)]
    var, mean = torch.var_mean(input.double(), (0, 2, 3), correction=0)
    weight, bias = (part.cuda() for part in norm[:2])
    moments = (mean.float(), var.float())
    return NormProblem(input, norm.of_moments(weight, bias, moments, norm.eps, True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "surplus"), SHAPE_ITEMS)
@pytest.mark.parametrize("kernel", ["cuda", "triton"])
def test_forward_and_backward(kernel, shape, surplus, dtype):
    problem = on_gpu(make_problem(shape, surplus), dtype)
    if reason := BACKENDS[kernel].cannot_run(problem):
        pytest.fail(reason)
    grad = torch.randn_like(problem.input)
    result, grads = expected_of(problem, grad)
    found, plain = (
        (backend.run(problem), *backend.run_backward(problem, grad.clone(), ALL))
        for backend in (BACKENDS[kernel], BACKENDS["reference"])
    )
    assert_as_exact(list(found), list(plain), [result, *grads], "bn_relu", dtype=dtype)
    again = (
        BACKENDS[kernel].run(problem),
        *BACKENDS[kernel].run_backward(problem, grad.clone(), ALL),
    )
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "surplus"), SHAPE_ITEMS)
@pytest.mark.parametrize("kernel", ["cuda", "triton"])
def test_statistics(kernel, shape, surplus, dtype):
    problem = on_gpu(make_problem(shape, surplus), dtype)
    channels, results = shape[1], []
    for backend, double in ((kernel, False), ("reference", False), ("reference", True)):
        parts = (problem.input, *problem.norm[:2])
        running = torch.zeros(channels), torch.ones(channels)
        if double:
            parts, running = (t.double() for t in parts), (t.double() for t in running)
        mean, var = (t.cuda() for t in running)
        batches = torch.tensor(3).cuda()
        statistics = STATISTICS[backend].run(
            StatisticsProblem(*parts, 1e-3, RunningStatistics(mean, var, batches, 0.1))
        )
        assert int(batches) == 4
        results.append([*statistics, mean, var])
    assert_as_exact(*results, "bn_statistics", dtype=torch.float32)


def test_graphs_are_replayed_in_any_order_and_at_once():
    """Warmed up on another stream than the captures': a graph must not need another's memory."""
    problem = StatisticsProblem(
        on_gpu(make_problem((64, 96, 16, 16)), torch.bfloat16).input, None, None, 1e-3
    )
    expected, graphs, results = STATISTICS["cuda"].run(problem), [], []
    for _ in range(2):
        graphs.append(torch.cuda.CUDAGraph())
        with torch.cuda.graph(graphs[-1], stream=torch.cuda.Stream()):
            results.append(STATISTICS["cuda"].run(problem))
    for result in results:
        result.fill_(torch.nan)
    graphs[1].replay()
    assert torch.equal(results[1], expected)
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    for _ in range(20):
        for graph, stream in zip(graphs, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(result, expected) for result in results)


def test_many_launches_count_anew():
    problem = on_gpu(make_problem((64, 96, 16, 16)), torch.bfloat16)
    runs = [
        STATISTICS["cuda"].run(StatisticsProblem(problem.input, None, None, 1e-3))
        for _ in range(50)
    ]
    assert all(torch.equal(runs[0], run) for run in runs)
