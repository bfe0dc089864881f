"""Barriers, fences and waits of weight_grad by wgmma: to remove one is noticed."""

from __future__ import annotations

import re

import breakable
import emulation
import pytest
import torch
from test_cuda_barriers import goes_wrong
from test_cuda_emulation import CASES
from test_wgmma_emulation import make_aligned_problem

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)

ORDERING = re.compile(
    r"((?:__syncthreads|__threadfence|cluster_sync|products_fence|products_commit)\(\)|"
    r"products_wait<[^>]*>\(\)|barrier_\w+\([^;]*\));"
)


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("breakable")
    return breakable.Breakable("weight_grad/wgmma", folder, ORDERING)


@pytest.fixture
def kernel(changed):
    """With shared memory for two stages of two warpgroups."""
    changed.without(-1)
    return emulation.WgmmaEmulation(changed.library, 6, 46 * 1024)


@pytest.fixture
def problem(kernel):
    """Each stage is used again, clusters share the sums, and there are several of them."""
    problem = make_aligned_problem((40, 72, 5, (8, 8), *CASES["3x3"][4:]), torch.bfloat16, True)
    plan = kernel.plan(problem)
    assert (plan["groups"], plan["stages"]) == (2, 2)
    assert plan["cluster"] > 1
    assert plan["clusters"] > 1
    assert plan["tiles"] > 3 * plan["cluster"] * plan["clusters"]
    return problem


def test_removing_any_of_them_is_noticed(changed, kernel, problem):
    """Shows that the tests of the kernel's numbers detect a missing one."""
    assert len(changed.statements) == 19
    for seed in range(3):
        changed.without(-1)
        assert not goes_wrong(kernel, problem, seed)
        for i, text in enumerate(changed.statements):
            changed.without(i)
            assert goes_wrong(kernel, problem, seed), f"{text} number {i}, seed {seed}"
