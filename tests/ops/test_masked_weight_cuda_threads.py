"""masked_weight's CUDA kernels, compiled for the CPU: memory, schedules of threads, barriers."""

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
from emulated_masked_weight import MaskedWeightEmulation
from supermasks import SCORES, check_weights, kept_by_sort, mask_of

from maskedconv.ops.masked_weight import MaskProblem, ThresholdProblem

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)
# Stores to shared memory count, too: it starts as NaN.
STATEMENTS = re.compile(
    breakable.ORDERING.pattern[:-2]
    + r"|shared\[thread\] = part|shared\.sums\[thread\] = sum|shared\.bins\[bin\] = 0);"
)
BOUNDS = re.compile(r"i < a\.elements|first >= a\.elements|i < end")
SHAPE = (100, 60)  # several blocks, and two digits of an index


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("breakable")
    return breakable.Breakable("masked_weight", folder, STATEMENTS, BOUNDS)


@pytest.fixture
def kernels(changed):
    changed.without(-1)
    return MaskedWeightEmulation(changed.library)


def run_guarded(changed, *bound):
    script = Path(__file__).with_name("guarded_masked_weight.py")
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


def test_one_element_more_is_noticed(changed):
    """Shows that the test above detects it, at each comparison with their number."""
    assert sorted(changed.bounds) == sorted(
        ["i < a.elements", "i < end", "first >= a.elements", "first >= a.elements"]
    )
    for bound, text in enumerate(changed.bounds):
        done = run_guarded(changed, str(bound))
        assert done.returncode in (1, -signal.SIGSEGV), f"{text} number {bound}: {done.stderr}"
        assert "inside" not in done.stdout


def run_once(kernels, seed, scores):
    """The mask and the binary weight, checked."""
    torch.manual_seed(0)
    score, weight, num_kept = SCORES[scores](SHAPE), torch.randn(SHAPE), 2000
    kernels.seed = seed
    threshold = kernels.find_threshold(ThresholdProblem(score, num_kept))
    mask = kept_by_sort(score, num_kept)
    assert torch.equal(mask_of(score, threshold), mask)
    check_weights(kernels, weight, score, threshold, mask)
    return kernels.masked_weight(MaskProblem(weight, score, threshold, True, 1.0, torch.float32))


@pytest.mark.parametrize("scores", ["ties", "normal"])
def test_any_schedule_gives_the_same_bits(kernels, scores):
    """Schedules of threads, warps and blocks."""
    first = run_once(kernels, 1, scores)
    for seed in range(2, 6):
        assert torch.equal(run_once(kernels, seed, scores), first)


def goes_wrong(kernels, seed):
    try:
        for scores in ("ties", "normal"):
            run_once(kernels, seed, scores)
    except (AssertionError, RuntimeError):
        return True
    return False


def test_removing_any_barrier_or_store_is_noticed(changed, kernels):
    """Shows that the tests above detect what is missing."""
    stores = ["shared[thread] = part", "shared.sums[thread] = sum", "shared.bins[bin] = 0"]
    assert sorted(changed.statements) == sorted(["__syncthreads()"] * 5 + stores)
    for seed in range(3):
        changed.without(-1)
        assert not goes_wrong(kernels, seed)
        for i, text in enumerate(changed.statements):
            changed.without(i)
            assert goes_wrong(kernels, seed), f"{text} number {i}, seed {seed}"


def test_a_barrier_that_some_threads_miss_is_an_error(changed, kernels):
    for i, text in enumerate(changed.statements):
        if text == "__syncthreads()":
            changed.without(i, only_partly=True)
            with pytest.raises(RuntimeError, match="never reach a barrier"):
                run_once(kernels, 0, "ties")
