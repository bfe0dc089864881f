"""On a GPU: the kernels of supermasks against a stable sort and float64, and whether they repeat.

Skipped if there is none; ``make gpu-check`` runs it.
"""

from __future__ import annotations

import pytest
import torch
from strides import strided_copy
from supermasks import DTYPES, LAYOUTS, SCORES, check_close, expected_grad, expected_weight
from supermasks import kept_by_sort as sorted_mask

from maskedconv.ops.masked_weight import (
    BACKENDS,
    MaskProblem,
    ScoreGradProblem,
    Threshold,
    ThresholdProblem,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

SHAPES = [(64, 3, 3, 3), (160, 160, 3, 3), (512, 513, 3, 1), (10, 7)]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "view"])
@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("kernel", ["reference", "cuda", "triton"])
def test_mask_weight_and_gradient(kernel, scores, layout):
    backend = BACKENDS[kernel]
    for shape in SHAPES[: 4 if layout == "contiguous" else 3]:
        score, weight = (LAYOUTS[layout](make(shape)) for make in (SCORES[scores], torch.randn))
        for num_kept in (0, 1, score.numel() // 3, score.numel()):
            problem = ThresholdProblem(strided_copy(score, "cuda"), num_kept)
            if reason := backend.cannot_run(problem):
                pytest.fail(reason)
            threshold = backend.find_threshold(problem)
            again = backend.find_threshold(problem)
            assert all(a.isnan() or a == b for a, b in zip(threshold, again, strict=True))
            check_on_gpu(backend, weight, score, threshold, sorted_mask(score, num_kept))


def check_on_gpu(backend, weight, score, threshold: Threshold, mask):
    there = [strided_copy(part, "cuda") for part in (weight, score)]
    for dtype, binary in ((dtype, binary) for dtype in DTYPES for binary in (False, True)):
        problem = MaskProblem(*there, threshold, binary, 1.5, dtype)
        found, again = (backend.masked_weight(problem) for _ in range(2))
        assert torch.equal(found, again)
        check_close(found.cpu(), expected_weight(weight, mask, binary, 1.5), dtype)
        grad = torch.randn(weight.shape).to(dtype)
        problem = ScoreGradProblem(grad.cuda(), *there, binary, 1.5, torch.float32)
        found = backend.score_grad(problem).cpu()
        check_close(found, expected_grad(problem).cpu(), torch.float32)


@pytest.mark.parametrize("kernel", ["cuda", "triton"])
def test_the_host_does_not_wait(kernel):
    score, weight = (torch.randn(160, 160, 3, 3, device="cuda") for _ in range(2))
    backend, problem = BACKENDS[kernel], ThresholdProblem(score, 1000)
    backend.find_threshold(problem)  # compiled now
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        threshold = backend.find_threshold(problem)
        backend.masked_weight(MaskProblem(weight, score, threshold, True, 1.0, torch.float32))
    finally:
        torch.cuda.set_sync_debug_mode("default")
