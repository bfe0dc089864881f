"""bn_relu's CUDA kernels, compiled for the CPU: memory, schedules of threads, and barriers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import breakable
import emulation
import pytest
import torch
from emulated_bn_relu import BNReluEmulation
from test_bn_relu import make_problem
from test_bn_relu_cuda import TOLERANCES, check_results, rounded

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)
# Stores to shared memory count, too: it starts as NaN.
STATEMENTS = re.compile(breakable.ORDERING.pattern[:-2] + r"|shared\[threadIdx\.x\] = part);")
MULTIPROCESSORS = 2
SHAPES = {  # [N, C, H, W] and the channels of a wider tensor that are left out
    "one tile": ((5, 12, 33, 31), 4),
    "two tiles": ((5, 72, 17, 13), 8),
    "single elements": ((5, 13, 33, 31), 3),
}


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("breakable")
    return breakable.Breakable("bn_relu", folder, STATEMENTS, common=["last_block.h"])


@pytest.fixture
def kernels(changed):
    changed.without(-1)
    return BNReluEmulation(changed.library, MULTIPROCESSORS)


def make(name, dtype):
    problem = rounded(make_problem(*SHAPES[name]), dtype)
    return problem, torch.randn_like(problem.input)


def run_guarded(changed, *bound):
    script = Path(__file__).with_name("guarded_bn_relu.py")
    return subprocess.run(
        [sys.executable, script, changed.library._name, *bound],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(emulation.__file__).parent)},
    )  # fmt: skip


def test_nothing_outside_of_the_tensors_is_touched(changed):
    """Runs in a process in which the pages before and after every tensor are forbidden."""
    done = run_guarded(changed)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "inside\n"


def test_one_pixel_or_channel_more_is_noticed(changed):
    """Shows that the test above detects it, at each comparison with their number."""
    assert len([text for text in changed.bounds if text.startswith("pixel")]) == 4
    assert len(changed.bounds) == 10
    for bound, text in enumerate(changed.bounds):
        done = run_guarded(changed, str(bound))
        assert done.returncode in (1, -signal.SIGSEGV), f"{text} number {bound}: {done.stderr}"
        assert "inside" not in done.stdout


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_any_schedule_gives_the_same_bits(kernels, name, dtype):
    """Schedules of threads, warps and blocks: each may be the last one, which adds up."""
    problem, grad = make(name, dtype)
    assert kernels.blocks(problem) > 2
    first = kernels.run(problem, grad, seed=1)
    check_results(problem, grad, first)
    for seed in range(2, 6):
        again = kernels.run(problem, grad, seed)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def goes_wrong(kernels, problem, grad, seed):
    try:
        check_results(problem, grad, kernels.run(problem, grad, seed))
    except (AssertionError, RuntimeError):
        return True
    return False


@pytest.mark.parametrize("name", SHAPES)
def test_removing_any_barrier_fence_or_store_is_noticed(changed, kernels, name):
    """Shows that the tests above detect what is missing."""
    problem, grad = make(name, torch.float32)
    assert sorted(changed.statements) == sorted(
        ["__syncthreads()"] * 3 + ["__threadfence()"] * 2 + ["shared[threadIdx.x] = part"]
    )
    for seed in range(3):
        changed.without(-1)
        assert not goes_wrong(kernels, problem, grad, seed)
        for i, text in enumerate(changed.statements):
            changed.without(i)
            assert goes_wrong(kernels, problem, grad, seed), f"{text} number {i}, seed {seed}"


def test_a_barrier_that_some_threads_miss_is_an_error(changed, kernels):
    problem, grad = make("one tile", torch.float32)
    changed.without(changed.statements.index("__syncthreads()"), only_partly=True)
    with pytest.raises(RuntimeError, match="never reach a barrier"):
        kernels.run(problem, grad)
