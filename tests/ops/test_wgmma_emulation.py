"""weight_grad by wgmma, compiled for the CPU (csrc/common/emulation), against float64."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import emulation
import pytest
import torch
from exact import assert_same, exact_weight_grad, poisoned_problems
from test_cuda_emulation import (
    ROUNDED,
    TOLERANCE,
    check_any_schedule,
    error_of,
    make_meta_problem,
    make_problem,
)

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)

DTYPES = (torch.bfloat16, torch.float16)
# batch, channels, filters, input size, kernel, stride, padding, dilation
CASES = {
    "3x3": (2, 40, 5, (9, 7), (3, 3), (1, 1), (1, 1), (1, 1)),
    "three warpgroups, 11 filters": (2, 160, 11, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    "two blocks of channels": (2, 200, 3, (8, 9), (3, 3), (1, 1), (1, 1), (1, 1)),
    "40 filters": (1, 24, 40, (8, 10), (3, 3), (1, 1), (1, 1), (1, 1)),
    "32 filters": (3, 72, 32, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1)),
    "1x1": (3, 24, 3, (8, 8), (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1, 35 filters": (2, 72, 35, (16, 5), (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1, padded": (1, 8, 12, (6, 7), (1, 1), (1, 1), (1, 2), (1, 1)),
    "5x5": (2, 24, 10, (13, 12), (5, 5), (1, 1), (2, 2), (1, 1)),
    "no padding": (2, 24, 5, (9, 17), (3, 3), (1, 1), (0, 0), (1, 1)),
    "much padding": (1, 8, 5, (3, 5), (3, 3), (1, 1), (4, 3), (1, 1)),
    "dilated": (2, 40, 8, (9, 10), (3, 3), (1, 1), (2, 3), (2, 3)),
    "small images": (5, 72, 18, (2, 2), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one pixel": (9, 16, 9, (1, 1), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one row": (2, 8, 2, (1, 30), (3, 3), (1, 1), (1, 1), (1, 1)),
    "many tiles": (36, 16, 5, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
}
# From 48 filters on the roles are swapped.
SWAPPED = {
    "48 filters": (2, 40, 48, (9, 7), (3, 3), (1, 1), (1, 1), (1, 1)),
    "64 filters, two blocks of channels": (1, 72, 64, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    "two blocks of filters": (1, 16, 67, (5, 9), (3, 3), (1, 1), (1, 1), (1, 1)),
    "1x1, 64 filters": (3, 24, 64, (8, 8), (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1, 192 channels": (2, 160, 50, (16, 5), (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1, two blocks of channels": (1, 200, 51, (8, 4), (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1, much padding": (1, 8, 49, (6, 7), (1, 1), (1, 1), (1, 2), (1, 1)),
    "no padding, 53 filters": (1, 24, 53, (9, 17), (3, 3), (1, 1), (0, 0), (1, 1)),
    "padding, 53 filters": (1, 8, 53, (3, 5), (3, 3), (1, 1), (4, 3), (1, 1)),
    "dilated, 56 filters": (2, 40, 56, (9, 10), (3, 3), (1, 1), (2, 3), (2, 3)),
    "small images, 50 filters": (5, 72, 50, (2, 2), (3, 3), (1, 1), (1, 1), (1, 1)),
    "one row, 57 filters": (2, 8, 57, (1, 30), (3, 3), (1, 1), (1, 1), (1, 1)),
    "many tiles, 64 filters": (20, 16, 64, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
}
CASES |= SWAPPED


@pytest.fixture
def kernel(wgmma_library):
    return emulation.WgmmaEmulation(wgmma_library)


def make_aligned_problem(case, dtype, prologue=False, view=0):
    """Pixels of both tensors are a multiple of 16 bytes apart, the learned filters end anywhere.

    ``view``: channels of the input's tensor beyond those that the problem has.
    """
    return make_problem(case, dtype, prologue, view + -case[1] % 8, more_filters=8 + -case[2] % 8)


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "prologue"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_weight_grad(kernel, name, dtype, prologue):
    """The input is dense, or the first channels of a wider tensor."""
    for view in (0, 8):
        problem = make_aligned_problem(CASES[name], dtype, prologue, view)
        assert kernel.refusal(problem) == ""
        assert error_of(kernel.run(problem), problem) < TOLERANCE


def test_no_filters_beyond_the_learned_ones(kernel):
    """The last core matrix is filled up with zeros."""
    case = CASES["three warpgroups, 11 filters"]
    problem = make_problem((*case[:2], 16, *case[3:]), torch.bfloat16, more_filters=0)
    for filters in (8, 11, 16):
        shape = torch.Size((filters, *problem.shape[1:]))
        part = problem._replace(shape=shape)
        assert error_of(kernel.run(part), part) < TOLERANCE


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "prologue"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("filters", [5, 49])
def test_what_is_not_finite(kernel, filters, dtype, prologue):
    """A value that is not finite affects only the elements with it as a factor."""
    case = (2, 24, filters, (5, 4), (3, 3), (1, 1), (1, 1), (1, 1))
    for problem in poisoned_problems(make_aligned_problem(case, dtype, prologue)):
        tolerance = ROUNDED[dtype] if prologue else TOLERANCE
        assert_same(kernel.run(problem), exact_weight_grad(problem), tolerance)


@pytest.mark.parametrize("multiprocessors", [1, 8, 16])
@pytest.mark.parametrize(
    "name",
    ["many tiles", "three warpgroups, 11 filters", "5x5", "48 filters", "1x1, 192 channels"],
)
def test_any_schedule_gives_the_same_bits(kernel, name, multiprocessors):
    emulated = emulation.WgmmaEmulation(kernel.library, multiprocessors)
    check_any_schedule(emulated, make_aligned_problem(CASES[name], torch.bfloat16, prologue=True))


def test_stages_are_used_again(kernel):
    """Shared memory for two stages only."""
    emulated = emulation.WgmmaEmulation(kernel.library, 1, 46 * 1024)
    problem = make_aligned_problem((7, 16, 5, (8, 8), *CASES["3x3"][4:]), torch.bfloat16, True)
    assert emulated.plan(problem)["stages"] == 2
    assert emulated.plan(problem)["tiles"] == 7
    check_any_schedule(emulated, problem)


def test_cases_cover_every_way_to_divide_the_work(kernel):
    emulated = emulation.WgmmaEmulation(kernel.library, 16)
    plans = [emulated.plan(make_aligned_problem(c, torch.bfloat16)) for c in CASES.values()]
    assert {found["filter_blocks"] for found in plans} == {1, 2, 4, 8}
    assert {found["groups"] for found in plans} == {1, 2, 3}
    swapped = [found for found in plans if found["swapped"]]
    assert len(swapped) == len(SWAPPED)
    assert {(found["groups"], found["warpgroups"]) for found in swapped} == {
        (1, 3), (1, 1), (2, 2), (3, 3),
    }  # fmt: skip
    assert {found["rows"] for found in plans} == {2, 4, 8}
    assert {found["cluster"] for found in plans} == {1, 2, 4, 8}
    for name in ("filter_groups", "channel_blocks", "clusters"):
        for form in (plans, swapped):
            assert any(found[name] == 1 for found in form), name
            assert any(found[name] > 1 for found in form), name


@pytest.mark.parametrize(("side", "least"), [(1, 48), (3, 48), (5, None)])
def test_from_how_many_filters_on_the_roles_are_swapped(kernel, side, least):
    sizes, geometry = (1, 8), ((8, 8), (side, side), (1, 1), (side // 2,) * 2, (1, 1))
    for filters in (1, 32, 47, 48, 64, 65, 200):
        problem = make_meta_problem((*sizes, filters, *geometry), torch.bfloat16)
        found = kernel.plan(problem)
        assert found["swapped"] == (least is not None and filters >= least), filters
        if found["swapped"]:
            assert found["filter_groups"] == -(-filters // 64)
            assert found["warpgroups"] == side


@pytest.mark.parametrize(("extra", "inside"), [((), True), (("beyond",), False)])
def test_nothing_outside_of_the_tensors_is_touched(kernel, extra, inside):
    """Runs in a process in which the pages before and after every tensor are forbidden."""
    script = Path(__file__).with_name("guarded_wgmma.py")
    done = subprocess.run(
        [sys.executable, script, kernel.library._name, *extra],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(emulation.__file__).parent)},
    )  # fmt: skip
    assert (done.returncode == 0) == inside, done.stderr
    assert done.returncode in (0, -signal.SIGSEGV), done.stderr
    assert done.stdout == ("inside\n" if inside else "")


@pytest.mark.parametrize(
    ("channels", "filters", "size", "side", "blocks"),
    [
        (160, 10, 32, 3, 128), (320, 32, 16, 3, 120), (640, 64, 8, 3, 120), (64, 6, 32, 3, 264),
        (204, 4, 32, 1, 128), (512, 51, 4, 3, 128), (1024, 102, 14, 1, 120),
    ],
)  # fmt: skip
def test_real_layers_give_work_to_most_of_a_gpu(kernel, channels, filters, size, side, blocks):
    """A batch of 128, for 132 multiprocessors; one block on each, or two small ones."""
    geometry = ((side, side), (1, 1), (side // 2, side // 2), (1, 1))
    layer = (128, channels, filters, (size, size), *geometry)
    emulated = emulation.WgmmaEmulation(kernel.library, 132)
    problem = make_meta_problem(layer, torch.bfloat16)
    assert emulated.refusal(problem) == ""
    found = emulated.plan(problem)
    positions = found["channel_blocks"] * found["filter_groups"]
    assert found["cluster"] * found["clusters"] * positions == blocks
    assert found["stages"] >= 4
    assert found["shared_bytes"] <= 227 * 1024
    assert blocks <= 132 or 2 * (found["shared_bytes"] + 1024) <= 228 * 1024
    assert found["tiles"] >= 2 * found["cluster"] * found["clusters"]
    assert positions * found["cluster"] <= 132 or found["clusters"] == 1  # counters


REFUSED = {
    "a stride": ((2, 40, 5, (9, 7), (3, 3), (2, 1), (1, 1), (1, 1)), "a stride of 1"),
    "another size": ((2, 40, 5, (9, 9), (7, 7), (1, 1), (3, 3), (1, 1)), "1x1, 3x3 and 5x5"),
    "no square": ((2, 40, 5, (9, 9), (3, 1), (1, 1), (1, 0), (1, 1)), "1x1, 3x3 and 5x5"),
    "a large dilation": ((1, 8, 5, (9, 9), (3, 3), (1, 1), (300, 300), (300, 300)), "above 256"),
    "a dilation": ((1, 8, 5, (9, 9), (3, 3), (1, 1), (130, 130), (130, 130)), "more than 256 rows"),
    "memory": ((1, 8, 5, (9, 9), (3, 3), (1, 1), (60, 60), (60, 60)), "fit into shared memory"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_sizes_that_are_refused(kernel, name):
    case, reason = REFUSED[name]
    problem = make_aligned_problem(case, torch.bfloat16)
    assert reason in kernel.refusal(problem)
    with pytest.raises(RuntimeError, match=reason):
        kernel.run(problem)


def test_layouts_that_are_refused(kernel):
    problem = make_aligned_problem(CASES["3x3"], torch.bfloat16)
    apart = problem.grad_output.contiguous()
    odd_input = make_problem(CASES["3x3"], torch.bfloat16, pitch=1).input
    odd_grad = make_problem(CASES["3x3"], torch.bfloat16, more_filters=2).grad_output
    shifted = torch.zeros(problem.input.numel() + 1, dtype=torch.bfloat16)[1:]
    shifted = shifted.as_strided(problem.input.shape, problem.input.stride())
    for change, reason in (
        ({"grad_output": apart}, "do not lie side by side"),
        ({"input": odd_input}, "multiple of 16 bytes apart"),
        ({"grad_output": odd_grad}, "multiple of 16 bytes apart"),
        ({"input": shifted}, "begin at a multiple of 16 bytes"),
        ({"input": problem.input[:1].expand_as(problem.input)}, "one behind the other"),
    ):
        with pytest.raises(RuntimeError, match=reason):
            kernel.run(problem._replace(**change))
    with pytest.raises(RuntimeError, match="bfloat16 and float16"):
        kernel.run(make_aligned_problem(CASES["3x3"], torch.float32))
