"""Barriers and waits of weight_grad's CUDA kernels: to remove one is noticed."""

from __future__ import annotations

import breakable
import emulation
import pytest
import torch
from test_cuda_emulation import CASES, TOLERANCE, error_of, make_fast_problem, make_problem

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    return breakable.Breakable("weight_grad", tmp_path_factory.mktemp("breakable"))


@pytest.fixture
def kernel(changed):
    changed.without(-1)
    return emulation.WeightGradEmulation(changed.library, multiprocessors=8)


def goes_wrong(kernel, problem, seed):
    try:
        return not error_of(kernel.run(problem, seed), problem) < TOLERANCE
    except RuntimeError:
        return True


@pytest.mark.parametrize("fast", [False, True])
def test_removing_any_barrier_or_wait_is_noticed(changed, kernel, fast):
    """Shows that the tests of the kernel's numbers detect a missing barrier."""
    make = make_fast_problem if fast else make_problem
    problem = make((36, 40, 11, (8, 8), *CASES["3x3"][4:]), torch.bfloat16)
    assert kernel.plan(problem)["pixel_warps"] > 2
    assert kernel.plan(problem)["tiles"] > 3 * kernel.plan(problem)["splits"]
    assert kernel.plan(problem)["splits"] >= 8  # then threads share the sums' elements, too
    assert len(changed.statements) == 6
    for seed in range(3):
        changed.without(-1)
        assert not goes_wrong(kernel, problem, seed)
        assert kernel.took_the_fast_path() == fast
        for i, text in enumerate(changed.statements):
            changed.without(i)
            assert goes_wrong(kernel, problem, seed), f"{text} number {i}, seed {seed}"


def test_a_barrier_that_some_threads_miss_is_an_error(changed, kernel):
    problem = make_problem(CASES["3x3"], torch.bfloat16)
    changed.without(changed.statements.index("__syncthreads()"), only_partly=True)
    with pytest.raises(RuntimeError, match="never reach a barrier"):
        kernel.run(problem)
