"""Barriers and waits of weight_grad's CUDA kernels: to remove one is noticed."""

from __future__ import annotations

import re
import shutil

import emulation
import pytest
import torch
from test_cuda_emulation import CASES, TOLERANCE, error_of, make_fast_problem, make_problem

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)


ORDERING = re.compile(r"(__syncthreads\(\)|copy_async_wait<[^>]*>\(\));")
GUARD = """
static int removed = -1, partly = 0;
static bool reached(int i) { return removed != i || (partly && threadIdx.x < 32); }
extern "C" void remove_ordering(int i, int only_partly) { removed = i, partly = only_partly; }
namespace maskedconv {
"""


@pytest.fixture(scope="module")
def breakable(tmp_path_factory):
    """The kernels with removable barriers and waits for copies, and the text of each."""
    folder = tmp_path_factory.mktemp("breakable")
    csrc = folder / "csrc"
    shutil.copytree(emulation.ROOT / "csrc", csrc)
    found = []

    def guarded(match):
        found.append(match[1])
        return f"if (reached({len(found) - 1})) {match[0]}"

    for source in sorted((csrc / "weight_grad" / "cuda").iterdir()):
        source.write_text(ORDERING.sub(guarded, source.read_text()))
    everywhere = csrc / "common" / "emulation" / "emulation.h"
    text = everywhere.read_text().replace("namespace maskedconv {\n", GUARD.lstrip(), 1)
    everywhere.write_text(text)
    kernel = emulation.WeightGradEmulation(
        emulation.build("weight_grad", folder, csrc), multiprocessors=8
    )
    yield kernel, found
    kernel.library.remove_ordering(-1, 0)


def goes_wrong(kernel, problem, seed):
    try:
        return not error_of(kernel.run(problem, seed), problem) < TOLERANCE
    except RuntimeError:
        return True


@pytest.mark.parametrize("fast", [False, True])
def test_removing_any_barrier_or_wait_is_noticed(breakable, fast):
    """Shows that the test above detects a missing barrier."""
    kernel, found = breakable
    make = make_fast_problem if fast else make_problem
    problem = make((36, 40, 11, (8, 8), *CASES["3x3"][4:]), torch.bfloat16)
    assert kernel.plan(problem)["pixel_warps"] > 2
    assert kernel.plan(problem)["tiles"] > 3 * kernel.plan(problem)["splits"]
    assert kernel.plan(problem)["splits"] >= 8  # then threads share the sums' elements, too
    assert len(found) == 6
    for seed in range(3):
        kernel.library.remove_ordering(-1, 0)
        assert not goes_wrong(kernel, problem, seed)
        assert kernel.took_the_fast_path() == fast
        for i, text in enumerate(found):
            kernel.library.remove_ordering(i, 0)
            assert goes_wrong(kernel, problem, seed), f"{text} number {i}, seed {seed}"


def test_a_barrier_that_some_threads_miss_is_an_error(breakable):
    kernel, found = breakable
    problem = make_problem(CASES["3x3"], torch.bfloat16)
    kernel.library.remove_ordering(found.index("__syncthreads()"), 1)
    with pytest.raises(RuntimeError, match="never reach a barrier"):
        kernel.run(problem)
