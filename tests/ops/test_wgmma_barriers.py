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
    r"((?:__syncthreads|__threadfence|cluster_sync|products_fence|products_commit|proxy_fence)\(\)|"
    r"products_wait<[^>]*>\(\)|sync_warps\([^;]*\)|barrier_\w+\([^;]*\));"
)


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("breakable")
    return breakable.Breakable("weight_grad/wgmma", folder, ORDERING, common=["last_block.h"])


def make_kernel(changed, multiprocessors, shared_bytes):
    changed.without(-1)
    return emulation.WgmmaEmulation(changed.library, multiprocessors, shared_bytes)


def check_each(changed, kernel, problem, statements):
    """Shows that the tests of the kernel's numbers detect a missing statement."""
    for seed in range(3):
        changed.without(-1)
        assert not goes_wrong(kernel, problem, seed)
        for i in statements:
            changed.without(i)
            text = f"{changed.statements[i]} number {i} of {changed.sources[i]}, seed {seed}"
            assert goes_wrong(kernel, problem, seed), text


# Filters, kernel, the file of the other form, statements without it, bytes for two stages.
FORMS = {
    "channels are rows": (5, "3x3", "swapped.h", 19, 46 * 1024),
    "filters are rows": (50, "1x1", "products.h", 21, 50 * 1024),
}


@pytest.mark.parametrize("form", FORMS)
def test_removing_any_of_them_is_noticed(changed, form):
    """Each stage is used again, clusters share the sums, and there are several of them."""
    filters, case, other_form, count, shared_bytes = FORMS[form]
    kernel = make_kernel(changed, 6, shared_bytes)
    problem = make_aligned_problem(
        (40, 72, filters, (8, 8), *CASES[case][4:]), torch.bfloat16, True
    )
    plan = kernel.plan(problem)
    assert plan["swapped"] == (other_form == "products.h")
    assert (plan["groups"], plan["stages"]) == (2, 2)
    assert plan["cluster"] > 1
    assert plan["clusters"] > 1
    assert plan["tiles"] > 3 * plan["cluster"] * plan["clusters"]
    statements = [i for i, source in enumerate(changed.sources) if source != other_form]
    assert len(statements) == count
    check_each(changed, kernel, problem, statements)


def test_removing_what_is_between_warpgroups_of_the_same_channels_is_noticed(changed):
    """Three rows of the kernel share one tile of x, which all of them normalise."""
    kernel = make_kernel(changed, 1, 160 * 1024)
    problem = make_aligned_problem((4, 8, 50, (8, 8), *CASES["3x3"][4:]), torch.bfloat16, True)
    plan = kernel.plan(problem)
    assert (plan["swapped"], plan["groups"], plan["warpgroups"]) == (1, 1, 3)
    between = ("proxy_fence()", "sync_warps(barrier, kThreads)")
    statements = [i for i, text in enumerate(changed.statements) if text in between]
    assert len(statements) == 2
    check_each(changed, kernel, problem, statements)
