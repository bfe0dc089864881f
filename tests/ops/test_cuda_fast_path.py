"""The fast path of weight_grad's CUDA kernel, and how it is chosen, compiled for the CPU."""

from __future__ import annotations

import ctypes

import emulation
import pytest
import torch
from test_cuda_emulation import (
    CASES,
    DTYPES,
    TOLERANCE,
    check_any_schedule,
    error_of,
    make_fast_problem,
    make_meta_problem,
    make_problem,
)

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)

# Channels fill copies of 16 bytes, the stride is 1, and taps of 8 filters fill the warps.
FAST_CASES = {
    "160 channels, 10 filters": (2, 160, 10, (9, 7), (3, 3), (1, 1), (1, 1), (1, 1)),
    "64 channels": (3, 64, 3, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    "4x4 maps": (9, 64, 17, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one pixel": (70, 32, 9, (1, 1), (3, 3), (1, 1), (1, 1), (1, 1)),
    "1x1, 66 filters": (2, 40, 66, (5, 6), (1, 1), (1, 1), (0, 0), (1, 1)),
    "3x1, 20 filters": (2, 48, 20, (6, 7), (3, 1), (1, 1), (1, 0), (1, 1)),
    "dilated": (2, 40, 8, (9, 10), (3, 3), (1, 1), (2, 2), (2, 2)),
    "no padding": (2, 24, 5, (9, 17), (3, 3), (1, 1), (0, 0), (1, 1)),
    "much padding": (1, 8, 5, (3, 5), (3, 3), (1, 1), (4, 3), (1, 1)),
    "many channels": (1, 448, 3, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one wide row": (1, 8, 20, (2, 100), (1, 3), (1, 1), (0, 1), (1, 1)),
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    library = emulation.build("weight_grad", tmp_path_factory.mktemp("emulated"))
    return emulation.WeightGradEmulation(library)


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "prologue"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FAST_CASES)
def test_the_fast_path(kernel, name, dtype, prologue):
    """The input is dense, or the first channels of a wider tensor."""
    for pitch in (0, 8):
        problem = make_fast_problem(FAST_CASES[name], dtype, prologue, pitch)
        assert error_of(kernel.run(problem), problem) < TOLERANCE
        assert kernel.took_the_fast_path()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_the_fast_path_does_not_take(kernel, dtype):
    """One condition is missing each time.

    In the first three cases both operands are copied by 16 bytes, in the others one by fewer.
    """
    case = FAST_CASES["64 channels"]
    others = {
        "channels end within 16 bytes": make_fast_problem((3, 62, *case[2:]), dtype, pitch=2),
        "strided": make_fast_problem((*case[:5], (2, 1), *case[6:]), dtype),
        "columns left over": make_fast_problem((*case[:2], 9, case[3], (1, 3), *case[5:]), dtype),
        "the gradient's pixels": make_problem(case, dtype, more_filters=2),
        "the input's pixels": make_fast_problem(case, dtype, pitch=1),
        "the gradient's channels": make_problem(case, dtype, contiguous_grad=True, more_filters=5),
    }
    for missing, problem in others.items():
        for prologue in (False, True):
            affine = (torch.rand(problem.shape[1]), torch.randn(problem.shape[1]))
            problem = problem._replace(scale=affine[0], shift=affine[1]) if prologue else problem
            assert error_of(kernel.run(problem), problem) < TOLERANCE, missing
            assert not kernel.took_the_fast_path(), missing


@pytest.mark.parametrize("multiprocessors", [1, 7, 60])
def test_many_splits(kernel, multiprocessors):
    """With many splits, several threads share an element of the sums."""
    emulated = emulation.WeightGradEmulation(kernel.library, multiprocessors)
    problem = make_fast_problem((90, 40, 3, (8, 8), *CASES["3x3"][4:]), torch.bfloat16)
    assert emulated.plan(problem)["splits"] == min(2 * multiprocessors, 45)
    assert error_of(emulated.run(problem), problem) < TOLERANCE
    check_any_schedule(emulated, problem)


def test_division_by_a_product(kernel):
    quotient = kernel.library.emulated_quotient
    most = 2**31 - 1
    divisors = {*range(1, 70), *(2**k + d for k in range(3, 31) for d in (-1, 0, 1)), most}
    for divisor in divisors:
        multiples = {divisor * k for k in (1, 2, 3, most // divisor - 1, most // divisor)}
        for dividend in {0, most, *(m + d for m in multiples for d in (-1, 0, 1))}:
            if 0 <= dividend <= most:
                answer = quotient(ctypes.c_int64(divisor), dividend)
                assert answer == dividend // divisor, (dividend, divisor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["160 channels, 10 filters", "4x4 maps", "3x1, 20 filters"])
def test_any_schedule_gives_the_same_bits_by_the_fast_path(kernel, name, dtype):
    check_any_schedule(kernel, make_fast_problem(FAST_CASES[name], dtype, prologue=True))
    assert kernel.took_the_fast_path()


@pytest.mark.parametrize(
    ("channels", "filters", "size", "blocks"),
    [
        (160, 10, 32, 132), (320, 32, 16, 132), (640, 64, 8, 130), (640, 10, 8, 132),
        (256, 25, 8, 128), (256, 1, 8, 128), (512, 51, 4, 128), (512, 5, 4, 128),
    ],
)  # fmt: skip
def test_small_maps_give_work_to_most_of_a_gpu(kernel, channels, filters, size, blocks):
    """The thread blocks of a batch of 128, for 132 multiprocessors; each has two tiles or more."""
    layer = (128, channels, filters, (size, size), *CASES["3x3"][4:])
    emulated = emulation.WeightGradEmulation(kernel.library, 132, 227 * 1024)
    plan = emulated.plan(make_meta_problem(layer, torch.bfloat16))
    assert plan["splits"] * plan["channel_blocks"] * plan["column_blocks"] == blocks
    assert plan["tiles"] >= 2 * plan["splits"]
