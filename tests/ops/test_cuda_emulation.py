"""The CUDA kernels, compiled for the CPU (csrc/common/emulation), against float64."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import emulation
import pytest
import torch
from exact import assert_same, edge_views, exact_weight_grad, poisoned_problems

from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad.problem import WeightGradProblem, outside_the_kernels

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)

# Operands are exact in each dtype, so that only the float32 summation rounds.
TOLERANCE = 3e-6
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# batch, channels, filters, input size, kernel, stride, padding, dilation
CASES = {
    "3x3": (2, 40, 5, (9, 7), (3, 3), (1, 1), (1, 1), (1, 1)),
    "64 channels, 11 filters": (3, 64, 11, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    "3x3/2": (2, 33, 9, (9, 11), (3, 3), (2, 2), (1, 1), (1, 1)),
    "1x1": (2, 16, 3, (8, 8), (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1/2, 77 filters": (2, 70, 77, (8, 8), (1, 1), (2, 2), (0, 0), (1, 1)),
    "11x11/4": (1, 3, 7, (33, 31), (11, 11), (4, 4), (5, 5), (1, 1)),
    "5x5": (2, 20, 10, (13, 12), (5, 5), (1, 1), (2, 2), (1, 1)),
    "7x7/2": (2, 5, 1, (23, 23), (7, 7), (2, 2), (3, 3), (1, 1)),
    "all differ": (2, 21, 2, (10, 15), (3, 2), (1, 2), (2, 0), (2, 3)),
    "small images": (5, 160, 18, (2, 2), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one pixel": (70, 17, 9, (1, 1), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one wide row": (1, 8, 2, (3, 100), (1, 3), (1, 1), (0, 1), (1, 1)),
    "many channels": (1, 450, 3, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
    "large stride": (2, 6, 3, (19, 17), (2, 2), (9, 16), (0, 0), (1, 1)),
}
CASE_ITEMS = [pytest.param(case, id=name) for name, case in CASES.items()]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    library = emulation.build("weight_grad", tmp_path_factory.mktemp("emulated"))
    return emulation.WeightGradEmulation(library)


@pytest.mark.parametrize(("extra", "inside"), [((), True), (("beyond",), False)])
def test_nothing_outside_of_the_tensors_is_touched(kernel, extra, inside):
    """Runs in a process in which the pages before and after every tensor are forbidden."""
    script = Path(__file__).with_name("guarded_kernel.py")
    done = subprocess.run(
        [sys.executable, script, kernel.library._name, *extra],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(emulation.__file__).parent)},
    )  # fmt: skip
    assert (done.returncode == 0) == inside, done.stderr
    assert done.returncode in (0, -signal.SIGSEGV), done.stderr
    assert done.stdout == ("inside\n" if inside else "")


def make_problem(case, dtype, prologue=False, pitch=0, contiguous_grad=False, more_filters=3):
    """The stride between pixels of the input is wider by ``pitch`` elements."""
    batch, channels, filters, size, kernel, stride, padding, dilation = case
    output = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    wide = torch.randn(batch, *size, channels + pitch).bfloat16().to(dtype)
    grad = torch.randn(batch, filters + more_filters, *output).bfloat16().to(dtype)
    if not contiguous_grad:
        grad = grad.to(memory_format=torch.channels_last)
    affine = (torch.rand(channels) + 0.5, torch.randn(channels)) if prologue else (None, None)
    return WeightGradProblem(
        wide.permute(0, 3, 1, 2)[:, :channels], grad, torch.Size((filters, channels, *kernel)), 0,
        ConvGeometry(stride, padding, dilation, 1), *affine,
    )  # fmt: skip


def make_fast_problem(case, dtype, prologue=False, pitch=0):
    """Pixels of the gradient begin at multiples of 16 bytes, the learned filters end anywhere."""
    return make_problem(case, dtype, prologue, pitch, more_filters=8 + -case[2] % 8)


def in_kernel_type(values, dtype):
    """The float64 values as the kernel's products read them: rounded to the dtype or TF32."""
    if dtype != torch.float32:
        return values.to(dtype).double()
    bits = values.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).double()


def expected_of(problem):
    x, geometry = problem.input.double(), problem.geometry
    if problem.scale is not None:
        scale, shift = (t.double().view(-1, 1, 1) for t in (problem.scale, problem.shift))
        x = in_kernel_type(torch.relu(x * scale + shift), problem.input.dtype)
    grad = problem.grad_output[:, : problem.shape[0]].double()
    return torch.ops.aten.convolution_backward(
        grad, x, x.new_zeros(problem.shape), None, geometry.stride, geometry.padding,
        geometry.dilation, False, (0, 0), 1, (False, True, False),
    )[1]  # fmt: skip


def error_of(result, problem):
    """The error relative to the complete gradient; NaN if the kernel omitted an element."""
    expected = expected_of(problem)
    return float((result.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "prologue"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASE_ITEMS)
def test_weight_grad(kernel, case, dtype, prologue):
    problem = make_problem(case, dtype, prologue)
    assert error_of(kernel.run(problem), problem) < TOLERANCE


POISONED_CASES = {
    "fast path": (2, 24, 5, (5, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
    "3x3": (2, 20, 5, (5, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
    "all differ": (2, 17, 9, (5, 6), (3, 2), (1, 2), (2, 0), (2, 1)),
}
# Tolerance for the activation, which the kernel rounds to the dtype.
ROUNDED = {torch.float32: 2**-11, torch.bfloat16: 2**-8, torch.float16: 2**-11}


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "prologue"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", POISONED_CASES)
def test_what_is_not_finite(kernel, name, dtype, prologue):
    """A value that is not finite affects only the elements with it as a factor."""
    problems = list(poisoned_problems(make_problem(POISONED_CASES[name], dtype, prologue)))
    for problem in problems[::2]:  # of each value in each operand one
        tolerance = ROUNDED[dtype] if prologue else TOLERANCE
        assert_same(kernel.run(problem), exact_weight_grad(problem), tolerance)
        assert name != "fast path" or kernel.took_the_fast_path()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sizes_of_one(kernel, dtype):
    for filters, channels, rows, columns in product((1, 2), repeat=4):
        grad = torch.randn(1, filters + 1, rows, columns).bfloat16().to(dtype)
        shape = torch.Size((filters, channels, 3, 1))
        geometry = ConvGeometry((1, 1), (1, 0), (1, 1), 1)
        for input in edge_views(1, channels, rows, columns):
            input = input.bfloat16().to(dtype)
            problem = WeightGradProblem(input, grad, shape, 0, geometry)
            if not outside_the_kernels(problem):
                assert_same(kernel.run(problem), exact_weight_grad(problem), TOLERANCE)


@pytest.mark.parametrize("pitch", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strides_and_alignments(kernel, dtype, pitch):
    """Copies of 16, 8 and 4 bytes and of one element; a gradient with strided channels."""
    for channels, filters in ((24, 5), (23, 8)):
        case = (2, channels, filters, *CASES["3x3"][3:])
        problem = make_problem(case, dtype, pitch=pitch, contiguous_grad=pitch == 2)
        assert error_of(kernel.run(problem), problem) < TOLERANCE
        images, filters_apart = problem.input[1:], problem.grad_output[1:]
        part = problem._replace(input=images, grad_output=filters_apart)
        assert error_of(kernel.run(part), part) < TOLERANCE


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["64 channels, 11 filters", "3x3/2", "one wide row"])
def test_any_schedule_gives_the_same_bits(kernel, name, dtype):
    problem = make_problem(CASES[name], dtype, prologue=True)
    check_any_schedule(kernel, problem)
    assert not kernel.took_the_fast_path()


def check_any_schedule(kernel, problem):
    first = kernel.run(problem, seed=1)
    assert error_of(first, problem) < TOLERANCE
    for seed in range(2, 6):
        assert torch.equal(kernel.run(problem, seed=seed), first)


def test_cases_cover_every_way_to_divide_the_work(kernel):
    plans = [kernel.plan(make_problem(case, torch.bfloat16)) for case in CASES.values()]
    assert {plan["m_tiles"] for plan in plans} == {2, 4}
    assert {plan["pixel_warps"] for plan in plans} == {1, 2, 4}
    for name in ("channel_warps", "column_warps", "channel_blocks", "column_blocks", "splits"):
        assert any(plan[name] == 1 for plan in plans), name
        assert any(plan[name] > 1 for plan in plans), name
    assert any(plan["tiles"] >= 4 * plan["splits"] for plan in plans)  # stages are used again


LAYERS = [
    (128, channels, filters, (size, size), (k, k), (s, s), (k // 2, k // 2), (1, 1))
    for channels, size in ((3, 224), (3, 32), (12, 32), (48, 32), (64, 56), (160, 32), (640, 8))
    for filters in (1, 10, 64, 160)
    for k, s in ((1, 1), (1, 2), (3, 1), (3, 2), (5, 1), (7, 2), (11, 4))
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_shared_memory_of_real_layers(kernel, dtype):
    """160 KiB is the limit of a block on sm_80, less a margin; sm_90 and sm_100 have more."""
    limit = 160 * 1024
    emulated = emulation.WeightGradEmulation(kernel.library, 132, limit)
    for layer in LAYERS:
        meta = make_meta_problem(layer, dtype)
        plan = emulated.plan(meta)
        assert 0 < plan["shared_bytes"] <= limit, layer
        warps = plan["channel_warps"] * plan["column_warps"] * plan["pixel_warps"]
        assert warps <= {2: 12, 4: 8}[plan["m_tiles"]], layer
        columns = math.ceil(layer[2] / 8) * math.prod(layer[4])
        assert plan["column_blocks"] * plan["column_warps"] * 9 >= columns, layer
        channels = plan["channel_blocks"] * plan["channel_warps"] * plan["m_tiles"] * 16
        assert channels >= layer[1], layer
        assert 1 <= plan["splits"] <= plan["tiles"], layer


def make_meta_problem(case, dtype):
    with torch.device("meta"):
        return make_problem(case, dtype)


def test_a_problem_without_room_is_said_to_have_none(kernel):
    case = (1, 4, 3, (90, 90), (3, 3), (1, 1), (80, 80), (80, 80))
    problem = make_problem(case, torch.float32)
    assert kernel.plan(problem)["splits"] == 0
    with pytest.raises(RuntimeError, match="does not fit into shared memory"):
        kernel.run(problem)
