"""The operator bn_statistics: each backend against float64, and against plain BatchNorm."""

from types import SimpleNamespace

import pytest
import torch
from cpu_backends import cpu_backends
from hypothesis import given, settings
from hypothesis import strategies as st
from precision import assert_as_exact
from torch import nn

from maskedconv.functional.features import GrowingFeatures
from maskedconv.ops import bn_relu, native, triton_runtime
from maskedconv.ops.bn_statistics import (
    BACKENDS,
    RunningStatistics,
    StatisticsProblem,
    bn_statistics,
    bn_statistics_of_sum,
)
from maskedconv.ops.dispatch import recorded_decisions

EPS = 1e-3
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(3, 19, 7, 5), (2, 64, 8, 8), (5, 1, 3, 4), (6, 21, 1, 1), (2, 12, 9, 9), (2, 7, 13, 12)]


def images(shape, dtype=torch.float32, surplus=0, shift=1.0):
    """The first channels of a channels_last tensor with ``surplus`` more."""
    batch, channels, *size = shape
    wide = torch.randn(batch, channels + surplus, *size) * 2 + shift
    return wide.to(dtype).contiguous(memory_format=torch.channels_last)[:, :channels]


def exact_statistics(input, weight=None, bias=None):
    """The statistics ``[5, C]`` of ``input`` in float64."""
    var, mean = torch.var_mean(input.double(), (0, 2, 3), correction=0)
    inverse_deviation = (var + EPS).rsqrt()
    scale = inverse_deviation if weight is None else inverse_deviation * weight.double()
    shift = -mean * scale if bias is None else bias.double() - mean * scale
    return torch.stack((mean, var, inverse_deviation, scale, shift))


def run(backend, problem):
    """The statistics; skips the test if the backend cannot compute them here."""
    if reason := BACKENDS[backend].cannot_run(problem):
        pytest.skip(f"{backend}: {reason}")
    return BACKENDS[backend].run(problem)


def assert_rows(found, expected):
    assert found.shape == expected.shape
    for row, exact in zip(found.double(), expected, strict=True):
        scale = max(1.0, float(exact.abs().max()))
        torch.testing.assert_close(row, exact, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("surplus", [0, 5], ids=["dense", "view"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_equals_float64(backend, shape, surplus, affine, dtype):
    input = images(shape, dtype, surplus)
    weight, bias = (torch.randn(shape[1]) if affine else None for _ in range(2))
    found = run(backend, StatisticsProblem(input, weight, bias, EPS))
    assert found.dtype == torch.float32
    assert_rows(found, exact_statistics(input, weight, bias))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_sum(backend, shape, dtype):
    """The sum has the bits of PyTorch's, and the statistics are those of the rounded sum."""
    input, summand = images(shape, dtype), images(shape, dtype, surplus=3, shift=-4.0)
    total = torch.empty_like(input)
    found = run(backend, StatisticsProblem(input, None, None, EPS, summand=summand, total=total))
    assert torch.equal(total, input + summand)
    assert_rows(found, exact_statistics(total))


@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_known_moments(backend):
    input, weight = images((3, 19, 7, 5)), torch.randn(19)
    expected = exact_statistics(input, weight)
    moments = expected[:2].float()
    table = torch.full((5, 23), torch.nan)
    problem = StatisticsProblem(torch.zeros_like(input), weight, None, EPS, None, moments)
    assert_rows(run(backend, problem), expected)
    run(backend, problem._replace(out=table[:, 2:21]))
    assert_rows(table[:, 2:21], expected)
    assert table[:, :2].isnan().all()
    assert table[:, 21:].isnan().all()


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.7, 1.0, None])
@pytest.mark.parametrize("known", [False, True], ids=["input", "moments"])
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_running_statistics_move_as_batch_norms(backend, known, momentum, counted):
    norm = nn.BatchNorm2d(19, EPS, momentum).double()
    ours = torch.zeros(19), torch.ones(19), torch.tensor(0) if counted else None
    running = RunningStatistics(*ours, momentum)
    if not counted and momentum is None:
        norm.momentum = 0.0  # without a count they stay
    for _ in range(3):
        input = images((3, 19, 7, 5))
        norm(input.double())
        moments = exact_statistics(input)[:2].float() if known else None
        run(backend, StatisticsProblem(input, None, None, EPS, running, moments))
    torch.testing.assert_close(ours[0].double(), norm.running_mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[1].double(), norm.running_var, rtol=1e-5, atol=1e-5)
    assert not counted or torch.equal(ours[2], norm.num_batches_tracked)


@pytest.mark.parametrize(
    "changes",
    [{"momentum": -0.1}, {"mean": torch.zeros(4).double(), "var": torch.ones(4).double()}],
    ids=["negative momentum", "float64"],
)
def test_what_the_kernel_does_not_move_is_moved_by_the_reference(changes):
    running = RunningStatistics(torch.zeros(4), torch.ones(4), torch.tensor(0), 0.1)
    running = running._replace(**changes)
    input = images((2, 4, 3, 3))
    with recorded_decisions() as decisions:
        bn_statistics(StatisticsProblem(input, None, None, EPS, running))
    assert [decision.backend for decision in decisions] == ["reference"]
    expected = running.momentum * exact_statistics(input)[0]
    torch.testing.assert_close(running.mean.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mean", [0.0, 1e3, -3e5])
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_large_means_cost_no_digits(backend, mean):
    """Errors are as small as those of PyTorch's own pass."""
    ours, plain, exact = [], [], []
    for _ in range(3):
        input = images((4, 20, 40, 40), shift=mean)
        problem = StatisticsProblem(input, None, None, EPS)
        ours.append(run(backend, problem))
        plain.append(BACKENDS["reference"].run(problem))
        exact.append(exact_statistics(input))
    for row in (0, 1):
        assert_as_exact(*([one[row] for one in each] for each in (ours, plain, exact)))


@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_an_outlier_costs_few_digits(backend):
    """Kernels take values relative to the first pixel. Here that is far from all others."""
    input = images((4, 20, 40, 40))
    input[0, :, 0, 0] = 3e4
    found, exact = run(backend, StatisticsProblem(input, None, None, EPS)), exact_statistics(input)
    torch.testing.assert_close(found[:2].double(), exact[:2], rtol=1e-3, atol=0)


def test_constant_channels_have_no_variance():
    input = torch.full((2, 5, 9, 9), 0.1).contiguous(memory_format=torch.channels_last)
    found = run("native", StatisticsProblem(input, None, None, EPS))
    assert torch.equal(found[:2], torch.tensor([[0.1], [0.0]]).expand(2, 5))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("pixel", [(0, 0, 0), (1, 6, 3)], ids=["first", "other"])
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_not_finite(backend, pixel, value):
    """The channel has no finite statistics, and the others are as without it."""
    input = images((3, 19, 7, 5))
    expected = exact_statistics(input)
    image, *place = pixel
    input[(image, 4, *place)] = value
    found = run(backend, StatisticsProblem(input, None, None, EPS))
    assert not found[:2, 4].isfinite().any()
    assert not found[4, 4].isfinite()
    others = [channel for channel in range(19) if channel != 4]
    assert_rows(found[:, others], expected[:, others])


@settings(max_examples=60)
@given(
    shape=st.tuples(*(st.integers(1, size) for size in (4, 40, 20, 20))),
    surplus=st.integers(0, 20),
    dtype=st.sampled_from(DTYPES),
    adds=st.booleans(),
)
def test_native_at_any_shape(shape, surplus, dtype, adds):
    input = images(shape, dtype, surplus)
    added = (images(shape, dtype), torch.empty_like(input)) if adds else (None, None)
    problem = StatisticsProblem(input, None, None, EPS)
    problem = problem._replace(summand=added[0], total=added[1])
    found = run("native", problem)
    assert_rows(found, exact_statistics(added[1] if adds else input))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_to_the_bit_each_time(threads):
    problem = StatisticsProblem(images((5, 33, 16, 17)), None, None, EPS)
    torch.set_num_threads(threads)
    first, again = (run("native", problem) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.skipif(native.module() is None, reason=native.REASON)
@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 1, 2**15, 2**16), "2147483647 pixels"), ((1, 2**31, 2, 1), "2147483647 channels")],
)
def test_sizes_that_its_kernel_would_refuse_are_for_the_reference(shape, words):
    """The values are one number in memory."""
    large = StatisticsProblem(torch.zeros(1, 1, 1, 1).expand(shape), None, None, EPS)
    small = large._replace(input=torch.zeros(1, 1, 1, 1).expand(1, 1, 2, 2))
    assert words in BACKENDS["native"].cannot_run(large)
    assert words not in BACKENDS["native"].cannot_run(small)
    # A decision for the one is none for the other.
    assert large.kind() != small.kind()


@pytest.mark.skipif(native.module() is None, reason=native.REASON)
def test_the_passes_refuse_channels_but_no_pixels():
    norm = bn_relu.Normalisation(None, None, torch.zeros(5, 1), EPS, True)
    pixels, channels = (
        bn_relu.NormProblem(torch.zeros(1, 1, 1, 1).expand(shape), norm)
        for shape in ((1, 1, 2**15, 2**16), (1, 2**31, 1, 2))
    )
    assert "2147483647" not in bn_relu.BACKENDS["native"].cannot_run(pixels)
    assert "2147483647 channels" in bn_relu.BACKENDS["native"].cannot_run(channels)


def test_choice():
    dense, planes = images((2, 4, 3, 3)), torch.randn(2, 4, 3, 3)
    problem = StatisticsProblem(dense, None, None, EPS)
    best = "reference" if BACKENDS["native"].cannot_run(problem) else "native"
    with recorded_decisions() as decisions:
        bn_statistics(problem)
        bn_statistics(StatisticsProblem(planes, None, None, EPS))
        bn_statistics(StatisticsProblem(dense.double(), None, None, EPS))
        bn_statistics_of_sum(problem._replace(summand=dense))
        bn_statistics_of_sum(problem._replace(summand=planes))
    expected = [best, "reference", "reference", best, "reference"]
    assert [decision.backend for decision in decisions] == expected


def test_growing_features_compute_only_new_moments():
    first, *rest = (images((2, channels, 5, 5)) for channels in (6, 4, 12))
    features = GrowingFeatures(first, 22)
    for new in (None, *rest):
        if new is not None:
            features.append(new)
        expected = exact_statistics(features.whole)[:2]
        torch.testing.assert_close(features.moments().double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_a_summand_that_a_kernel_of_the_gpu_cannot_read_is_refused(name, monkeypatch):
    """Otherwise the kernel would be called faulty."""
    monkeypatch.setattr(native, "module", lambda: SimpleNamespace(bn_relu_cuda=None))
    monkeypatch.setattr(native, "why_no_code_for", lambda _: "")
    monkeypatch.setattr(triton_runtime, "cannot_launch", lambda device: "")
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0), raising=False)
    input = images((2, 5, 4, 3))
    problem = StatisticsProblem(input, None, None, EPS, total=torch.empty_like(input))
    for summand, reason in (
        (images((2, 5, 4, 3), surplus=3), ""),
        (torch.randn(2, 5, 4, 3), "channels"),
        (images((2, 5, 4, 3), torch.bfloat16), "a tensor of its sum torch.bfloat16"),
    ):
        found = BACKENDS[name].cannot_run(problem._replace(summand=summand))
        assert reason in found
        assert bool(found) == bool(reason)
