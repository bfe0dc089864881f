"""weight_grad: every backend that runs here against float64 autograd."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from cpu_backends import cpu_backends
from free_memory import fill_free_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from precision import assert_as_exact

from maskedconv.ops.dispatch import chosen_backend
from maskedconv.ops.geometry import ConvGeometry, output_size
from maskedconv.ops.weight_grad import (
    BACKENDS,
    OPERATOR,
    WeightGradProblem,
    native,
    reference,
    weight_grad,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# kernel, stride, padding, dilation
SHAPES = {
    "1x1": ((1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1/2": ((1, 1), (2, 2), (0, 0), (1, 1)),
    "3x3": ((3, 3), (1, 1), (1, 1), (1, 1)),
    "3x3/2": ((3, 3), (2, 2), (1, 1), (1, 1)),
    "3x3 unpadded": ((3, 3), (1, 1), (0, 0), (1, 1)),
    "3x3 widely padded": ((3, 3), (1, 1), (3, 4), (1, 1)),
    "5x5": ((5, 5), (1, 1), (2, 2), (1, 1)),
    "7x7/2": ((7, 7), (2, 2), (3, 3), (1, 1)),
    "11x11/4": ((11, 11), (4, 4), (5, 5), (1, 1)),
    "dilated": ((3, 3), (1, 1), (2, 2), (2, 2)),
    "rectangular": ((3, 5), (2, 1), (0, 2), (1, 1)),
    "stride beyond kernel": ((2, 2), (3, 3), (0, 0), (1, 1)),
}


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """New tensors start as NaN, so that unwritten elements are detected."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _computed_once(monkeypatch):
    """Elements that are not finite are computed again, which would hide faults."""
    compiled = native._COMPILED

    def weight_grad_once(*arguments):
        assert not compiled.weight_grad(*arguments)

    if compiled is not None:
        only = SimpleNamespace(weight_grad=weight_grad_once)
        monkeypatch.setattr(native, "_COMPILED", only)


def make_problem(shape, channels, filters, size, batch=2, dtype=torch.float32, prologue=False):
    """A problem whose input and gradient are views of wider channels_last tensors."""
    kernel, stride, padding, dilation = shape
    output = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    wide = torch.randn(batch, channels + 5, *size).to(dtype)
    grad = torch.randn(batch, filters + 3, *output).to(dtype)
    affine = (torch.rand(channels) + 0.5, torch.randn(channels)) if prologue else (None, None)
    return WeightGradProblem(
        wide.to(memory_format=torch.channels_last)[:, :channels],
        grad.to(memory_format=torch.channels_last),
        torch.Size((filters, channels, *kernel)),
        0,
        ConvGeometry(stride, padding, dilation, 1),
        *affine,
    )


def expected_of(problem, dtype=torch.float64):
    """PyTorch's weight gradient from operands of ``dtype``."""
    input = problem.input
    if problem.scale is not None:
        scale, shift = (t.double().view(-1, 1, 1) for t in (problem.scale, problem.shift))
        input = (input.double() * scale + shift).relu()
    grad = problem.grad_output[:, : problem.shape[0]]
    return torch.nn.grad.conv2d_weight(
        input.to(dtype).contiguous(), problem.shape, grad.to(dtype).contiguous(),
        problem.geometry.stride, problem.geometry.padding, problem.geometry.dilation,
    )  # fmt: skip


def check(name, problem):
    if reason := BACKENDS[name].cannot_run(problem):
        pytest.skip(f"{name}: {reason}")
    grad = BACKENDS[name].run(problem)
    assert grad.shape == problem.shape
    dtype = problem.input.dtype
    plain = expected_of(problem, dtype)
    assert_as_exact([grad], [plain], [expected_of(problem)], name, dtype=dtype)


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "bn-relu"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_equals_autograd(backend, shape, dtype, prologue):
    check(backend, make_problem(SHAPES[shape], 20, 5, (13, 15), dtype=dtype, prologue=prologue))


@pytest.mark.parametrize("filters", [1, 2, 3, 4, 7, 12, 13, 33])
@pytest.mark.parametrize("channels", [1, 3, 16, 24, 65])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("backend", cpu_backends(BACKENDS))
def test_any_number_of_filters_and_channels(backend, dtype, filters, channels):
    check(backend, make_problem(SHAPES["3x3"], channels, filters, (9, 8), batch=3, dtype=dtype))


@pytest.mark.parametrize("dense", [False, True], ids=["view", "dense"])
@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "bn-relu"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("filters", [5, 14], ids=["few filters", "rows interleaved"])
@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("shape", SHAPES)
def test_native_of_few_channels(shape, channels, filters, dtype, prologue, dense):
    problem = make_problem(
        SHAPES[shape], channels, filters, (13, 15), dtype=dtype, prologue=prologue
    )
    if dense:
        problem = problem._replace(
            input=problem.input.contiguous(memory_format=torch.channels_last)
        )
    check("native", problem)


@settings(max_examples=60)
@given(data=st.data())
def test_native_at_any_shape(data):
    draw = data.draw

    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, dilation = pair(1, 5), pair(1, 2)
    size = tuple(
        (k - 1) * d + draw(st.integers(1, 9)) for k, d in zip(kernel, dilation, strict=True)
    )
    shape = (kernel, pair(1, 4), pair(0, 4), dilation)
    problem = make_problem(
        shape, draw(st.integers(1, 40)), draw(st.integers(1, 20)), size,
        batch=draw(st.integers(0, 4)), dtype=draw(st.sampled_from(DTYPES)),
        prologue=draw(st.booleans()),
    )  # fmt: skip
    check("native", problem)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [3, 20])
@pytest.mark.parametrize("shape", ["1x1", "3x3"])
def test_native_of_a_contiguous_gradient(shape, channels, dtype):
    problem = make_problem(SHAPES[shape], channels, 5, (13, 15), dtype=dtype)
    check("native", problem._replace(grad_output=problem.grad_output.contiguous()))


@pytest.mark.parametrize("channels", [1, 300])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_prologue_is_rounded_to_the_type_of_the_input(dtype, channels):
    """The gradient of one pixel and one filter, times 1, is the activation itself."""
    problem = make_problem(SHAPES["1x1"], channels, 1, (1, 1), 1, dtype, prologue=True)
    problem = problem._replace(
        grad_output=torch.ones_like(problem.grad_output), scale=torch.ones(channels)
    )
    if reason := native.cannot_run(problem):
        pytest.skip(reason)
    activation = (problem.input.float() + problem.shift.view(-1, 1, 1)).relu().to(dtype).float()
    assert torch.equal(native.run(problem), activation)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_number_of_16_bits_is_read_exactly(dtype):
    """The gradient of one pixel and one filter, times 1, is the pixel itself."""
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    # Products of bfloat16 take numbers that are not normal for 0.
    normal = dtype == torch.float16 or numbers.abs() >= torch.finfo(dtype).tiny
    pixel = numbers[numbers.isfinite() & normal].view(1, -1, 1, 1)
    one, shape = torch.ones(1, 1, 1, 1, dtype=dtype), torch.Size((1, pixel.size(1), 1, 1))
    problem = WeightGradProblem(pixel, one, shape, 0, ConvGeometry((1, 1), (0, 0), (1, 1), 1))
    if reason := native.cannot_run(problem):
        pytest.skip(reason)
    assert torch.equal(native.run(problem), pixel.float())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_two_runs_are_equal_to_the_bit(threads, dtype):
    torch.set_num_threads(threads)
    problem = make_problem(SHAPES["3x3"], 20, 5, (13, 15), batch=5, dtype=dtype)
    first, second = (weight_grad(problem, torch.float32) for _ in range(2))
    check("native", problem)
    assert torch.equal(first, second)


def test_what_goes_to_the_reference():
    problem = make_problem(SHAPES["3x3"], 16, 4, (8, 8))
    others = {
        "channels_last": problem._replace(input=problem.input.contiguous()),
        "one group": problem._replace(geometry=problem.geometry._replace(groups=2)),
        "dimension 1": problem._replace(slice_dim=1),
        "float32, bfloat16 and float16": problem._replace(input=problem.input.half()),
    }
    for reason, other in others.items():
        assert chosen_backend(OPERATOR, other) is reference
        assert reason in BACKENDS["native"].cannot_run(other)


def test_forcing_a_backend_that_cannot_run(monkeypatch):
    problem = make_problem(SHAPES["3x3"], 16, 4, (8, 8))
    monkeypatch.setenv("MASKEDCONV_BACKEND", "native")
    with pytest.raises(RuntimeError, match=r"'native', which cannot run: .*not of dimension 1"):
        weight_grad(problem._replace(slice_dim=1), torch.float32)


@pytest.mark.parametrize("learned", [4, 400])
def test_kernels_run_on_the_cpu_where_they_can(learned):
    problem = make_problem(SHAPES["3x3"], 512, learned, (2, 2), batch=1)
    expected = reference if native.cannot_run(problem) else native
    assert chosen_backend(OPERATOR, problem) is expected
    double = problem._replace(input=problem.input.double())
    assert chosen_backend(OPERATOR, double) is reference


def test_the_argument_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("MASKEDCONV_BACKEND", "native")
    problem = make_problem(SHAPES["3x3"], 16, 4, (8, 8))._replace(backend="reference")
    assert chosen_backend(OPERATOR, problem) is reference
    with pytest.raises(RuntimeError, match=r"argument backend is 'cuda', which cannot run: "):
        weight_grad(problem._replace(backend="cuda"), torch.float32)


@pytest.mark.parametrize("slice_dim", [0, 1])
@pytest.mark.parametrize("channels", [1, 3, 4, 7, 8, 16, 48])
@pytest.mark.parametrize("stride", [(2, 2), (1, 3)])
def test_strided_1x1_filters(channels, stride, slice_dim):
    """oneDNN writes beyond its memory: repeated, so that it would be seen.

    PyTorch's error is that of the same sum without a stride, over the pixels that are read.
    """
    x = torch.randn(2, channels, 8, 9).to(memory_format=torch.channels_last)
    grad = torch.randn(2, 32, 7 // stride[0] + 1, 8 // stride[1] + 1)
    problem = WeightGradProblem(
        x, grad.to(memory_format=torch.channels_last), torch.Size((32, channels, 1, 1)), slice_dim,
        ConvGeometry(stride, (0, 0), (1, 1), 1), backend="reference",
    )  # fmt: skip
    expected = torch.nn.grad.conv2d_weight(x.double(), problem.shape, grad.double(), stride)
    for _ in range(20):
        result = weight_grad(problem, torch.float32)
    pixels = x[:, :, :: stride[0], :: stride[1]].clone(memory_format=torch.contiguous_format)
    plain = torch.nn.grad.conv2d_weight(pixels, problem.shape, grad)
    assert_as_exact([result], [plain], [expected])


@pytest.mark.parametrize(
    ("kernel", "width", "padding"),
    [
        *[(kernel, width, 1) for kernel in [(2, 2), (2, 3), (3, 3)] for width in [1, 2]],
        ((2, 1), 1, 0),
        ((2, 2), 2, 0),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 7, 20])
def test_maps_narrower_than_the_stride_in_bfloat16(channels, kernel, width, padding):
    """oneDNN reads uninitialised memory: repeated with free memory full of NaN."""
    x = torch.randn(1, channels, 8, width).bfloat16().to(memory_format=torch.channels_last)
    geometry = ConvGeometry((3, 3), (padding, padding), (1, 1), 1)
    shape = torch.Size((32, channels, *kernel))
    rows, columns = output_size(x.shape[2:], kernel, geometry)
    grad = torch.randn(1, 32, rows, columns).bfloat16().to(memory_format=torch.channels_last)
    problem = WeightGradProblem(x, grad, shape, 1, geometry, backend="reference")
    padded = torch.nn.functional.pad(x, (padding,) * 4)
    expected = torch.nn.grad.conv2d_weight(padded.double(), shape, grad.double(), (3, 3))
    plain = torch.nn.grad.conv2d_weight(padded.float(), shape, grad.float(), (3, 3)).bfloat16()
    for _ in range(20):
        fill_free_memory()
        result = weight_grad(problem, torch.float32)
        assert_as_exact([result], [plain], [expected], dtype=torch.bfloat16)
