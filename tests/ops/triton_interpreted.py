"""The Triton kernels in Triton's interpreter; test_triton.py runs this in a process of its own.

The interpreter truncates where a GPU rounds to bfloat16, and its bfloat16 products are wrong: the
weight gradient is computed in float32 there, which is why one tolerance serves every type.
"""

from __future__ import annotations

import ctypes
import mmap
from itertools import product
from unittest import mock

import pytest
import torch
from exact import assert_same, edge_views, exact_weight_grad, poisoned_problems

from maskedconv.ops import triton_runtime
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.pack_filters import PackProblem
from maskedconv.ops.pack_filters import triton as pack_filters
from maskedconv.ops.weight_grad import WeightGradProblem, triton_config
from maskedconv.ops.weight_grad import triton as weight_grad
from maskedconv.ops.weight_grad import triton_finish as finish

assert triton_runtime.interpreted(), "set TRITON_INTERPRET=1 before Python starts"

TOLERANCE = 2e-6  # of the largest element
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
FORMATS = [torch.contiguous_format, torch.channels_last]
# batch, channels, (height, width), learned filters, kernel, stride, padding, dilation
CASES = {
    "1 filter": (2, 5, (7, 6), 1, (3, 3), (1, 1), (1, 1), (1, 1)),
    "3 filters": (1, 16, (9, 8), 3, (3, 3), (1, 1), (1, 1), (1, 1)),
    "9 filters": (2, 19, (7, 9), 9, (3, 3), (1, 1), (0, 1), (1, 1)),
    "17 filters": (1, 3, (6, 7), 17, (3, 3), (2, 2), (1, 1), (1, 1)),
    "wide, 1 filter": (1, 125, (5, 7), 1, (3, 3), (1, 1), (1, 1), (1, 1)),
    "wide, 5 filters": (1, 128, (7, 5), 5, (3, 3), (2, 2), (1, 1), (1, 1)),
    "wide, 8 filters": (1, 250, (6, 5), 8, (3, 3), (1, 1), (1, 1), (1, 1)),
    "1x1": (3, 37, (5, 7), 5, (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1, 65 filters": (1, 37, (5, 7), 65, (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1, wide, 20 filters": (1, 120, (5, 7), 20, (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1, wide, 5 filters": (1, 120, (5, 7), 5, (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1/2": (2, 8, (7, 9), 3, (1, 1), (2, 2), (0, 0), (1, 1)),
    "1x1/2 padded": (2, 8, (7, 9), 3, (1, 1), (2, 2), (1, 1), (1, 1)),
    "5x5": (1, 6, (9, 8), 11, (5, 5), (1, 1), (2, 2), (1, 1)),
    "7x7/2": (1, 3, (15, 13), 2, (7, 7), (2, 2), (3, 3), (1, 1)),
    "11x11/4": (2, 3, (23, 19), 5, (11, 11), (4, 4), (2, 2), (1, 1)),
    "rectangular": (2, 7, (9, 11), 11, (3, 2), (2, 1), (2, 0), (1, 1)),
    "rectangular, few": (2, 7, (9, 11), 3, (3, 5), (1, 1), (0, 3), (1, 2)),
    "dilated": (2, 7, (9, 11), 8, (3, 3), (1, 2), (2, 1), (2, 3)),
    "one pixel": (1, 4, (1, 1), 2, (3, 3), (1, 1), (1, 1), (1, 1)),
    "stride beyond kernel": (2, 4, (9, 8), 3, (2, 2), (3, 3), (0, 0), (1, 1)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """Uninitialised memory starts as NaN, so that unwritten elements are detected."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def make_problem(case, dtype=torch.float32, prologue=False, grad_format=torch.channels_last):
    """Views of the first channels of wider tensors with NaN in the other channels."""
    batch, channels, size, filters, kernel, *geometry = case
    stride, padding, dilation = geometry
    output = [
        (length + 2 * p - d * (k - 1) - 1) // s + 1
        for length, p, d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    input = torch.full((batch, channels + 3, *size), float("nan"), dtype=dtype)
    input[:, :channels] = torch.randn(batch, channels, *size)
    grad = torch.full((batch, filters + 2, *output), float("nan"), dtype=dtype)
    grad[:, :filters] = torch.randn(batch, filters, *output)
    affine = (torch.rand(channels) + 0.5, torch.randn(channels)) if prologue else (None, None)
    return WeightGradProblem(
        input.contiguous(memory_format=torch.channels_last)[:, :channels],
        grad.contiguous(memory_format=grad_format),
        torch.Size((filters, channels, *kernel)), 0, ConvGeometry(*geometry, 1), *affine,
    )  # fmt: skip


class FinishesWithoutInput:
    """The last kernel with an input of NaN, because it would recompute and hide an earlier NaN."""

    kernel = finish.finish_kernel

    def __getitem__(self, grid):
        def launch(input, *rest, **constants):
            span = 1 + sum((n - 1) * s for n, s in zip(input.shape, input.stride(), strict=True))
            nan = torch.full((span,), torch.nan, dtype=input.dtype)
            return self.kernel[grid](
                nan.as_strided(input.shape, input.stride()), *rest, **constants
            )

        return launch


def check(problem):
    assert weight_grad.cannot_run(problem) == ""
    with mock.patch.object(finish, "finish_kernel", FinishesWithoutInput()):
        grad = weight_grad.run(problem)
    assert (grad.shape, grad.dtype) == (problem.shape, torch.float32)
    input = problem.input.double()
    if problem.scale is not None:
        scale, shift = (part.double().view(-1, 1, 1) for part in (problem.scale, problem.shift))
        input = (input * scale + shift).relu()
    expected = torch.nn.grad.conv2d_weight(
        input, problem.shape, problem.grad_output[:, : problem.shape[0]].double(),
        *problem.geometry[:3],
    )  # fmt: skip
    atol = TOLERANCE * float(expected.abs().max())
    torch.testing.assert_close(grad.double(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("dtype", "prologue"),
    [(torch.float32, False), (torch.float32, True), (torch.bfloat16, True), (torch.float16, False)],
    ids=["float32", "float32 bn-relu", "bfloat16 bn-relu", "float16"],
)
@pytest.mark.parametrize("case", CASES)
def test_equals_float64(case, dtype, prologue):
    check(make_problem(CASES[case], dtype, prologue))


def test_the_cases_cover_every_configuration():
    covered = {
        triton_config.choose(channels, filters, kernel[0] * kernel[1])
        for _, channels, _, filters, kernel, *_ in CASES.values()
    }
    assert covered == set(triton_config.list_configurations())


@pytest.mark.parametrize("case", ["3 filters", "9 filters", "1x1", "11x11/4"])
def test_gradients_of_other_strides(case):
    check(make_problem(CASES[case], grad_format=torch.contiguous_format))
    problem = make_problem(CASES[case])
    grad = problem.grad_output
    check(problem._replace(grad_output=torch.ones(()).expand_as(grad)))
    check(problem._replace(grad_output=grad.transpose(2, 3).contiguous().transpose(2, 3)))


@pytest.mark.parametrize("processors", [1, 3, 1000])
@pytest.mark.parametrize("case", ["3 filters", "9 filters"])
def test_any_split_of_the_pixels(case, processors, monkeypatch):
    monkeypatch.setattr(weight_grad, "_processors", lambda device: processors)
    batch, *rest = CASES[case]
    problem = make_problem((2 * batch, *rest))
    check(problem)
    assert torch.equal(weight_grad.run(problem), weight_grad.run(problem))


# Like CASES, but small, because the interpreter is slow.
POISONED_CASES = {
    "pairs": (2, 5, (3, 4), 3, (3, 3), (1, 1), (1, 1), (1, 1)),
    "taps": (1, 3, (4, 3), 9, (3, 3), (1, 1), (1, 1), (1, 1)),
    "strided": (1, 4, (5, 4), 3, (3, 2), (2, 2), (1, 0), (1, 1)),
    "dilated": (1, 2, (4, 5), 2, (3, 3), (1, 1), (2, 1), (2, 1)),
    "1x1/2": (2, 3, (4, 3), 3, (1, 1), (2, 2), (0, 0), (1, 1)),
}


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "bn-relu"])
@pytest.mark.parametrize("case", POISONED_CASES)
def test_what_is_not_finite(case, prologue, monkeypatch):
    """Such a value affects only the elements with it as a factor; see triton_finish.py."""
    monkeypatch.setattr(weight_grad, "FINISH_BLOCK", {"BLOCK_PARTS": 4, "BLOCK": 512})
    problems = list(poisoned_problems(make_problem(POISONED_CASES[case], prologue=prologue)))
    for problem in problems[::2]:  # of each value in each operand one
        assert_same(weight_grad.run(problem), exact_weight_grad(problem), TOLERANCE)


def test_edge_shapes():
    """Sizes of 0 and 1: the backend computes every problem that it accepts."""
    taken = 0
    for (batch, rows, columns, channels, filters), kernel in product(
        product((0, 1), repeat=5), ((1, 1), (3, 1))
    ):
        padding = (kernel[0] // 2, 0)
        for input in edge_views(batch, channels, rows, columns):
            grad = torch.randn(batch, filters + 1, rows, columns)
            shape = torch.Size((filters, channels, *kernel))
            geometry = ConvGeometry((1, 1), padding, (1, 1), 1)
            problem = WeightGradProblem(input, grad, shape, 0, geometry)
            reason = weight_grad.cannot_run(problem)
            assert reason in ("", "the problem is empty")
            if not reason:
                taken += 1
                assert_same(weight_grad.run(problem), exact_weight_grad(problem), TOLERANCE)
    assert taken == 2 * 6


def before_a_fence(tensor):
    """A channels_last copy at the end of a page, before memory that may not be read."""
    page, no_access = mmap.PAGESIZE, 0
    flat = tensor.permute(0, 2, 3, 1).flatten()
    size = flat.numel() * flat.element_size()
    pages = -(-size // page) * page
    memory = mmap.mmap(-1, pages + page)
    fence = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + pages
    protect = ctypes.CDLL(None).mprotect
    assert protect(ctypes.c_void_p(fence), ctypes.c_size_t(page), no_access) == 0
    copy = torch.frombuffer(memory, dtype=flat.dtype, count=flat.numel(), offset=pages - size)
    batch, channels, height, width = tensor.shape
    return copy.copy_(flat).view(batch, height, width, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("case", ["3 filters", "9 filters", "1x1", "5x5", "11x11/4"])
def test_reads_nothing_past_the_end(case):
    problem = make_problem(CASES[case])
    learned = problem.grad_output[:, : problem.shape[0]]
    check(
        problem._replace(input=before_a_fence(problem.input), grad_output=before_a_fence(learned))
    )


def parts_of(shape, slice_dim, count, dtypes):
    """Learned and frozen slices with gaps in memory, and the weight in float64."""
    wide = torch.randn(*shape[:3], 2 * shape[3]).to(dtypes[0])
    learned = wide[..., ::2].narrow(slice_dim, 0, count)
    frozen = torch.randn(shape).to(dtypes[1]).contiguous(memory_format=torch.channels_last)
    frozen = frozen.narrow(slice_dim, count, shape[slice_dim] - count)
    return learned, frozen, torch.cat((learned.double(), frozen.double()), slice_dim)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("slice_dim", range(4))
def test_pack_filters(slice_dim, dtype, memory_format):
    shape = (9, 13, 5, 3) if slice_dim != 3 else (2, 1, 3, 9)
    for types in [(torch.float32, torch.float32), (torch.float32, torch.bfloat16)]:
        learned, frozen, whole = parts_of(shape, slice_dim, 2, types)
        problem = PackProblem(learned, frozen, slice_dim, dtype, memory_format)
        assert pack_filters.cannot_run(problem) == ""
        bank = pack_filters.run(problem)
        assert bank.dtype == dtype
        assert bank.is_contiguous(memory_format=memory_format)
        # Rounding to bfloat16 differs by at most a unit in the last place; the rest is exact.
        rtol = 2**-7 if dtype == torch.bfloat16 else 0
        torch.testing.assert_close(bank, whole.to(dtype), rtol=rtol, atol=0)
