"""The operator bn_relu: each backend against autograd in float64."""

import pytest
import torch
from cpu_backends import cpu_backends
from hypothesis import given, settings
from hypothesis import strategies as st
from precision import assert_as_exact
from torch.nn import functional as F

from maskedconv.ops.bn_relu import (
    BACKENDS,
    BackwardMemory,
    Normalisation,
    NormProblem,
    bn_relu,
    bn_relu_backward,
)
from maskedconv.ops.dispatch import recorded_decisions
from maskedconv.ops.geometry import pixel_pitch

EPS = 1e-3
ALL = (True, True, True)


def make_problem(shape, surplus=0, affine=True, uses_batch_stats=True, dtype=torch.float32):
    """``input`` is the first channels of a channels_last tensor with ``surplus`` more."""
    batch, channels, rows, columns = shape
    wide = torch.randn(batch, channels + surplus, rows, columns, dtype=dtype) * 2 + 1
    input = wide.to(memory_format=torch.channels_last)[:, :channels]
    weight, bias = (torch.randn(channels, dtype=dtype) if affine else None for _ in range(2))
    mean, var = torch.randn(channels, dtype=dtype), torch.rand(channels, dtype=dtype) + 0.5
    if uses_batch_stats:
        var, mean = torch.var_mean(input, (0, 2, 3), correction=0)
    norm = Normalisation.of_moments(weight, bias, (mean, var), EPS, uses_batch_stats)
    return NormProblem(input, norm)


def expected_of(problem, grad):
    """The activation and the gradients of input, γ and β."""
    norm = problem.norm
    x, weight, bias = (
        None if part is None else part.double().requires_grad_()
        for part in (problem.input.detach(), *norm[:2])
    )
    moments = (None, None) if norm.uses_batch_stats else norm.statistics[:2].double()
    result = F.relu(F.batch_norm(x, *moments, weight, bias, norm.uses_batch_stats, 0.0, EPS))
    result.backward(grad.double())
    return result.detach(), tuple(None if part is None else part.grad for part in (x, weight, bias))


def check(name, problem, needs=ALL, in_place=False):
    backend = BACKENDS[name]
    if reason := backend.cannot_run(problem):
        pytest.skip(f"{name}: {reason}")
    grad = torch.randn_like(problem.input)
    result, grads = expected_of(problem, grad)
    close(backend.run(problem), result)
    given_grad = grad.clone(memory_format=torch.preserve_format)
    found = backend.run_backward(problem, given_grad, needs, BackwardMemory(in_place=in_place))
    assert in_place or torch.equal(given_grad, grad)
    for needed, value, expected in zip(needs, found, grads, strict=True):
        assert (value is not None) == (needed and expected is not None)
        if value is not None:
            close(value, expected)


def close(value, expected):
    assert value.shape == expected.shape
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("uses_batch_stats", [False, True], ids=["constants", "batch"])
@pytest.mark.parametrize("affine", [False, True], ids=["plain", "affine"])
@pytest.mark.parametrize("surplus", [0, 5], ids=["dense", "view"])
@pytest.mark.parametrize("shape", [(3, 19, 7, 5), (2, 64, 8, 8), (5, 1, 3, 4), (6, 21, 1, 1)])
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_equals_autograd(backend, shape, surplus, affine, uses_batch_stats, in_place):
    check(backend, make_problem(shape, surplus, affine, uses_batch_stats), in_place=in_place)


@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, True), (False, False, True), (False,) * 3]
)
@pytest.mark.parametrize("uses_batch_stats", [False, True])
def test_what_is_not_needed_is_none(backend, needs, uses_batch_stats):
    check(backend, make_problem((2, 9, 4, 4), uses_batch_stats=uses_batch_stats), needs)


@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_no_pixels(backend):
    problem = make_problem((2, 5, 3, 3))
    problem = problem._replace(input=problem.input[:0])
    if reason := BACKENDS[backend].cannot_run(problem):
        pytest.skip(reason)
    assert BACKENDS[backend].run(problem).shape == (0, 5, 3, 3)
    grad = torch.empty(0, 5, 3, 3)
    grads = BACKENDS[backend].run_backward(problem, grad, ALL)
    assert grads[0].shape == (0, 5, 3, 3)
    assert torch.equal(grads[1], torch.zeros(5))
    assert torch.equal(grads[2], torch.zeros(5))


def rounded(problem, dtype):
    """The problem with an input of ``dtype``, and its statistics."""
    input, norm = problem.input.to(dtype), problem.norm
    if norm.uses_batch_stats:
        var, mean = torch.var_mean(input.float(), (0, 2, 3), correction=0)
        norm = Normalisation.of_moments(*norm[:2], (mean, var), EPS, True)
    return problem._replace(input=input, norm=norm)


def plain_results(problem, grad):
    """Activation and gradients by PyTorch's modules in the dtype of the input."""
    norm = problem.norm
    x, weight, bias = (
        part.detach().clone().requires_grad_() for part in (problem.input, *norm[:2])
    )
    moments = (None, None) if norm.uses_batch_stats else norm.statistics[:2].clone()
    result = F.relu(F.batch_norm(x, *moments, weight, bias, norm.uses_batch_stats, 0.0, EPS))
    result.backward(grad)
    return result.detach(), x.grad, weight.grad, bias.grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("uses_batch_stats", [False, True], ids=["constants", "batch"])
@pytest.mark.parametrize("surplus", [0, 5], ids=["dense", "view"])
@pytest.mark.parametrize("shape", [(3, 19, 7, 5), (2, 64, 8, 8), (5, 1, 3, 4), (6, 21, 1, 1)])
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_low_precision_is_as_exact_as_plain_modules(
    backend, shape, surplus, uses_batch_stats, dtype
):
    problem = rounded(make_problem(shape, surplus, uses_batch_stats=uses_batch_stats), dtype)
    if reason := BACKENDS[backend].cannot_run(problem):
        pytest.skip(reason)
    grad = torch.randn_like(problem.input)
    ours = BACKENDS[backend].run(problem), *BACKENDS[backend].run_backward(problem, grad, ALL)
    plain = plain_results(problem, grad)
    result, grads = expected_of(problem, grad)
    for name, *values in zip(
        ("result", "input", "weight", "bias"), ours, plain, (result, *grads), strict=True
    ):
        assert_as_exact(*([value] for value in values), name, dtype=dtype)
    assert ours[0].dtype == ours[1].dtype == dtype


def around_every_number(dtype):
    """All numbers of ``dtype``, the middles between neighbours, and the float32 beside these."""
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).float()
    ordered = numbers[numbers.isfinite()].sort().values
    middles = (ordered[:-1].double() + ordered[1:].double()).div(2).float()
    infinity = torch.tensor(torch.inf)
    beside = (middles.nextafter(infinity), middles.nextafter(-infinity))
    special = torch.tensor([1e-40, 3.4e38, -3.4e38, 65519, 65520, 1e5, torch.inf, -torch.inf])
    return torch.cat((numbers, middles, *beside, special))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_to_16_bits_is_pytorchs(dtype):
    """Forward rounds what is not negative. The gradient, here the scale, has both signs."""
    wide = around_every_number(dtype)
    one, zero = torch.ones(len(wide)), torch.zeros(len(wide))

    def problem_of(scale, shift):
        norm = Normalisation(None, None, torch.stack((zero, one, one, scale, shift)), 0.0, False)
        return NormProblem(torch.zeros(1, len(wide), 1, 1, dtype=dtype), norm)

    if reason := BACKENDS["native"].cannot_run(problem_of(one, wide)):
        pytest.skip(reason)
    result = BACKENDS["native"].run(problem_of(one, wide)).flatten()
    torch.testing.assert_close(result, wide.to(dtype).relu(), rtol=0, atol=0, equal_nan=True)
    wide = wide[wide.isfinite()]
    one, zero = torch.ones(len(wide)), torch.zeros(len(wide))
    problem = problem_of(wide, one)
    grad = BACKENDS["native"].run_backward(problem, torch.ones_like(problem.input), ALL)[0]
    torch.testing.assert_close(grad.flatten(), wide.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("uses_batch_stats", [False, True], ids=["constants", "batch"])
@pytest.mark.parametrize("surplus", [0, 5], ids=["dense", "view"])
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_the_gradient_is_added_to_other_memory(backend, surplus, uses_batch_stats):
    problem = make_problem((3, 19, 7, 5), surplus, uses_batch_stats=uses_batch_stats)
    if reason := BACKENDS[backend].cannot_run(problem):
        pytest.skip(reason)
    grad = torch.randn_like(problem.input)
    whole = torch.randn(3, 19 + surplus, 7, 5).to(memory_format=torch.channels_last)
    before = whole.clone()
    memory = BackwardMemory(added_to=whole[:, :19])
    found = BACKENDS[backend].run_backward(problem, grad, ALL, memory)
    _, expected = expected_of(problem, grad)
    assert found[0] is memory.added_to
    close(found[0], before[:, :19] + expected[0])
    assert torch.equal(whole[:, 19:], before[:, 19:])
    for value, other in zip(found[1:], expected[1:], strict=True):
        close(value, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("surplus", [0, 5], ids=["dense", "view"])
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_another_gradient_is_added_and_stays(backend, surplus, dtype):
    problem = make_problem((3, 19, 7, 5), surplus)
    problem = problem._replace(input=problem.input._base.to(dtype)[:, :19])
    if reason := BACKENDS[backend].cannot_run(problem):
        pytest.skip(reason)
    grad = torch.randn_like(problem.input)
    whole = torch.randn(3, 19 + surplus, 7, 5).to(dtype).to(memory_format=torch.channels_last)
    before = whole.clone()
    run = BACKENDS[backend].run_backward
    alone = run(problem, grad, ALL)
    found = run(problem, grad.clone(), ALL, BackwardMemory(None, True, added=whole[:, :19]))
    assert torch.equal(whole, before)
    # Rounded once, or before and after the addition.
    step = torch.finfo(dtype).eps * (alone[0].abs() + before[:, :19].abs()).double()
    error = found[0].double() - (alone[0].double() + before[:, :19].double())
    assert bool((error.abs() <= 2 * step + 1e-30).all())
    assert all(torch.equal(a, b) for a, b in zip(found[1:], alone[1:], strict=True))
    written = torch.full_like(whole, torch.nan)[:, :19]
    memory = BackwardMemory(None, True, added_to=written, added=whole[:, :19])
    both = run(problem, grad.clone(), ALL, memory)
    assert both[0] is written
    assert all(torch.equal(a, b) for a, b in zip(both, found, strict=True))
    assert torch.equal(whole, before)


@settings(max_examples=60)
@given(
    shape=st.tuples(*(st.integers(1, size) for size in (4, 40, 9, 9))),
    surplus=st.integers(0, 20),
    affine=st.booleans(),
)
def test_native_at_any_shape(shape, surplus, affine):
    # Batch statistics of few pixels may have a variance near zero.
    check("native", make_problem(shape, surplus, affine, uses_batch_stats=False))


def test_many_pixels_far_from_zero():
    """Sums over many pixels, with a mean much larger than the deviation."""
    problem = make_problem((16, 8, 64, 64))
    input = problem.input + 30
    var, mean = torch.var_mean(input, (0, 2, 3), correction=0)
    norm = Normalisation.of_moments(*problem.norm[:2], (mean, var), EPS, True)
    check("native", NormProblem(input, norm))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_to_the_bit_each_time(threads):
    problem = make_problem((5, 33, 6, 7))
    if BACKENDS["native"].cannot_run(problem):
        pytest.skip("no compiled module")
    grad = torch.randn_like(problem.input)
    torch.set_num_threads(threads)
    first, again = (BACKENDS["native"].run_backward(problem, grad, ALL) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("tensor", "pitch"),
    [
        (torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last), 3),
        (torch.empty(2, 7, 4, 5).to(memory_format=torch.channels_last)[:, :3], 7),
        (torch.empty(2, 3, 4, 5), 0),
        (torch.empty(2, 3, 4, 6).to(memory_format=torch.channels_last)[..., :5], 0),
        (torch.empty(4, 3, 4, 5).to(memory_format=torch.channels_last)[::2], 0),
        (torch.empty(2, 3, 4, 4).to(memory_format=torch.channels_last).transpose(2, 3), 0),
        (torch.empty(2, 1, 4, 5), 1),
        (torch.empty(2, 3, 1, 1), 3),
        (torch.empty(1, 3, 1, 1).expand(2, 3, 4, 5), 0),
    ],
)
def test_pixel_pitch(tensor, pitch):
    assert pixel_pitch(tensor) == pitch


def test_choice(monkeypatch):
    problem = make_problem((2, 4, 3, 3))
    grad = torch.randn_like(problem.input)
    best = "reference" if BACKENDS["native"].cannot_run(problem) else "native"
    for forced, expected in (("", best), ("reference", "reference")):
        if forced:
            monkeypatch.setenv("MASKEDCONV_BACKEND", forced)
        with recorded_decisions() as choices:
            bn_relu(problem)
            bn_relu_backward(problem, grad, ALL)
        assert [choice.backend for choice in choices] == [expected] * 2
    monkeypatch.setenv("MASKEDCONV_BACKEND", "native")
    with pytest.raises(RuntimeError, match=r"'native', which cannot run: .*float64"):
        bn_relu(make_problem((2, 4, 3, 3), dtype=torch.float64))
    monkeypatch.setenv("MASKEDCONV_BACKEND", "cuda")
    with pytest.raises(RuntimeError, match="'cuda', which cannot run: "):
        bn_relu(problem)
