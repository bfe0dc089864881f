"""masked_weight's CUDA kernels, compiled for the CPU (csrc/common/emulation)."""

from __future__ import annotations

from types import SimpleNamespace

import emulation
import pytest
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

from maskedconv.ops import native
from maskedconv.ops.masked_weight import (
    MaskProblem,
    ScoreGradProblem,
    Threshold,
    ThresholdProblem,
    cuda,
)

pytestmark = [
    pytest.mark.skipif(
        emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
    ),
    pytest.mark.usefixtures("pretended_gpu"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scores", SCORES)
def test_mask_weight_and_gradient(scores, layout):
    """A number of elements that is a multiple of 4, and one that is not."""
    for shape in ((5, 7, 3, 3), (8, 8, 3, 3)):
        score, weight = (LAYOUTS[layout](make(shape)) for make in (SCORES[scores], torch.randn))
        for num_kept in counts_of(score)[1::2]:
            check_backend(cuda, weight, score, num_kept)


@pytest.mark.parametrize("scores", ["uniform", "ties", "near"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_several_blocks_and_digits_of_an_index(scores, layout):
    score = LAYOUTS[layout](SCORES[scores]((30, 100, 3, 1)))
    check_backend(cuda, LAYOUTS[layout](torch.randn(30, 100, 3, 1)), score, 3456)


@pytest.mark.parametrize("shape", [(), (1,), (257,), (2, 3), (2, 2, 2, 2, 3)])
def test_any_number_of_dimensions(shape):
    score, weight = torch.randn(shape), torch.randn(shape)
    for num_kept in counts_of(score):
        check_backend(cuda, weight, score, num_kept)


def test_more_parts_than_blocks_of_elements():
    """A part of a sum has more elements than a block has threads."""
    shape = (300, 256)
    check_backend(cuda, torch.randn(shape), SCORES["ties"](shape), 20000)


def test_addresses_that_are_not_aligned():
    score, weight = torch.randn(65)[1:], torch.randn(67)[3:]
    check_backend(cuda, weight, score, 20)


def test_scores_that_are_not_finite():
    score, weight = torch.randn(50), torch.randn(50)
    score[[3, 7, 40]] = torch.tensor([NAN, -NAN, NAN])
    score[9] = INF
    for num_kept in (0, 1, 2, 3, 4, 20, 50):
        threshold = cuda.find_threshold(ThresholdProblem(score, num_kept))
        kept = kept_by_sort(score, num_kept)
        problem = MaskProblem(weight, score, threshold, False, 1.0, torch.float32)
        found = cuda.masked_weight(problem)
        assert found[score.isnan()].isnan().all()
        assert torch.equal(found.bool() | score.isnan(), kept | score.isnan())
        found = cuda.masked_weight(problem._replace(binary=True))
        assert torch.equal(found.isnan(), kept | score.isnan())


def test_the_sign_of_every_kind_of_score():
    check_signs(cuda)


def test_an_index_relative_to_a_layer():
    score = torch.full((40,), 0.5)
    for first, kept in ((-7, 40), (0, 40), (13, 27), (40, 0), (2**40, 0)):
        threshold = Threshold(torch.tensor(0.5), torch.tensor(first))
        problem = MaskProblem(score, score, threshold, False, 1.0, torch.float32)
        assert int(cuda.masked_weight(problem).bool().sum()) == kept


def test_the_module_checks_its_arguments(emulated_module):
    ones, threshold = torch.ones(4), (torch.ones(()), torch.zeros((), dtype=torch.int64))
    value, first = (part.data_ptr() for part in threshold)
    sizes, steps = (1, 1, 1, 4), (0, 0, 0, 1)
    with pytest.raises(ValueError, match="find_threshold_cuda: num_kept is 5; expected 1 to 4"):
        emulated_module.find_threshold_cuda(ones.data_ptr(), sizes, steps, 5, value, first, 8, 8, 0)
    with pytest.raises(ValueError, match="masked_weight_cuda: score is a null pointer"):
        emulated_module.masked_weight_cuda(
            "float32", ones.data_ptr(), 0, sizes, steps, value, first, 1.0, ones.data_ptr(), 0, 0
        )
    with pytest.raises(ValueError, match="score_grad_cuda: elements is 0; expected 1 to"):
        emulated_module.score_grad_cuda("float32", 8, 8, 8, 0, False, 1.0, 8, 0)
    with pytest.raises(ValueError, match="score_grad_cuda: score is a null pointer"):
        emulated_module.score_grad_cuda("float32", 8, 8, 0, 4, False, 1.0, 8, 0)
    with pytest.raises(ValueError, match="masked_weight_cuda: size is 0"):
        emulated_module.masked_weight_cuda(
            "float32", 8, 8, (1, 1, 0, 4), steps, value, first, 1.0, 8, 0, 0
        )


def test_what_it_does_not_take(monkeypatch):
    score = torch.randn(2, 3)
    problem = ThresholdProblem(score, 1)
    assert "its kernel is for cuda; tensors are on cpu" in cuda.cannot_run(problem)
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0), raising=False)
    assert cuda.cannot_run(problem) == ""
    assert "float64" in cuda.cannot_run(ThresholdProblem(score.double(), 1))
    assert "nothing to compute" in cuda.cannot_run(ThresholdProblem(score[:0], 0))
    deep = torch.randn(2, 3, 2, 2, 2).transpose(0, 1)
    problem = ScoreGradProblem(deep, deep, deep, False, 1.0, torch.float32)
    assert "at most 4 permuted dimensions, not 5" in cuda.cannot_run(problem)
    monkeypatch.setattr(native, "module", lambda: SimpleNamespace())
    assert "without CUDA" in cuda.cannot_run(problem)
