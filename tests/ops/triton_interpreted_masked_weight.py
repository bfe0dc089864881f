"""masked_weight's Triton kernels in Triton's interpreter; test_triton.py runs this in its own
process.

The interpreter truncates where a GPU rounds to bfloat16.
"""

from __future__ import annotations

import pytest
import supermasks
import torch
from supermasks import (
    INF,
    LAYOUTS,
    NAN,
    SCORES,
    check_backend,
    check_signs,
    counts_of,
    kept_by_sort,
)

from maskedconv.ops import triton_runtime
from maskedconv.ops.masked_weight import MaskProblem, ThresholdProblem, triton

assert triton_runtime.interpreted(), "set TRITON_INTERPRET=1 before Python starts"


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch):
    """Uninitialised memory starts as NaN, so that unwritten elements are detected."""
    monkeypatch.setattr(supermasks, "DTYPES", (torch.float32, torch.float16))
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scores", SCORES)
def test_mask_weight_and_gradient(scores, layout):
    score = LAYOUTS[layout](SCORES[scores]((5, 7, 3, 3)))
    weight = LAYOUTS[layout](torch.randn(5, 7, 3, 3))
    for num_kept in counts_of(score)[:-1]:
        check_backend(triton, weight, score, num_kept)


@pytest.mark.parametrize("scores", ["uniform", "ties", "near"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_several_programs_and_digits_of_an_index(scores, layout):
    """More elements than a program has and than a digit of the index counts; a sum in parts."""
    score = LAYOUTS[layout](SCORES[scores]((70, 150, 3, 1)))
    check_backend(triton, LAYOUTS[layout](torch.randn(70, 150, 3, 1)), score, 12345)
    assert len(triton.digits_of(score.numel())) == 6


@pytest.mark.parametrize("shape", [(), (1,), (257,), (2, 3), (2, 2, 2, 2, 3)])
def test_any_number_of_dimensions(shape):
    score, weight = torch.randn(shape), torch.randn(shape)
    for num_kept in counts_of(score):
        check_backend(triton, weight, score, num_kept)


def test_the_sign_of_every_kind_of_score():
    check_signs(triton)


def test_a_sum_of_more_blocks_than_parts(monkeypatch):
    monkeypatch.setattr(triton, "PARTS", 2)
    score, weight = torch.randn(5 * 4096 + 3), torch.randn(5 * 4096 + 3)
    assert triton.split(score.numel()) == (2, 3 * 4096)
    check_backend(triton, weight, score, 7000)


def test_scores_that_are_not_finite():
    score, weight = torch.randn(50), torch.randn(50)
    score[[3, 7, 40]] = torch.tensor([NAN, -NAN, NAN])
    score[9] = INF
    for num_kept in (1, 2, 3, 4, 20, 50):
        threshold = triton.find_threshold(ThresholdProblem(score, num_kept))
        kept = kept_by_sort(score, num_kept)
        problem = MaskProblem(weight, score, threshold, False, 1.0, torch.float32)
        found = triton.masked_weight(problem)
        assert found[score.isnan()].isnan().all()
        assert torch.equal(found.bool() | score.isnan(), kept | score.isnan())
        found = triton.masked_weight(problem._replace(binary=True))
        assert torch.equal(found.isnan(), kept | score.isnan())
