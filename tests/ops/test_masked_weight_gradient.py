"""score_grad: every backend for the CPU against float64 formulae and PyTorch's autograd."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from supermasks import DTYPES, LAYOUTS, check_close, check_signs, expected_grad

from maskedconv.ops import native
from maskedconv.ops.masked_weight import BACKENDS, ScoreGradProblem, score_grad

NAMES = [
    "reference",
    pytest.param("native", marks=pytest.mark.skipif(native.module() is None, reason=native.REASON)),
]


@pytest.fixture(params=NAMES)
def backend(request):
    return BACKENDS[request.param]


def test_the_sign_of_every_kind_of_score(backend):
    check_signs(backend)


@pytest.mark.parametrize("layouts", list(product(LAYOUTS, repeat=3)), ids="-".join)
def test_gradient_weight_and_score_of_different_layouts(backend, layouts):
    grad, weight, score = (LAYOUTS[layout](torch.randn(6, 4, 3, 3)) for layout in layouts)
    for binary in (False, True):
        problem = ScoreGradProblem(grad, weight, score, binary, 0.7, torch.float32)
        found = backend.score_grad(problem)
        assert found.stride() == torch.empty_like(weight).stride()
        check_close(found, expected_grad(problem), torch.float32)


@pytest.mark.parametrize("binary", [False, True])
def test_a_zero_score_has_no_gradient_where_the_product_overflows(backend, binary):
    """The sign is a factor of the weight, so that 0 is not multiplied by infinity."""
    large, score = torch.full((20,), -1e30), torch.tensor([0.0, -1.0, 1.0, -0.0]).repeat(5)
    found = backend.score_grad(ScoreGradProblem(large, large, score, binary, 1.0, torch.float32))
    size = float("-inf") if binary else float("inf")
    assert torch.equal(found, torch.tensor([0.0, -size, size, 0.0]).repeat(5))


@pytest.mark.parametrize(
    ("weight", "score"), list(product((*DTYPES, torch.float64), repeat=2)), ids=str
)
def test_the_gradient_is_in_the_dtype_of_the_scores(weight, score):
    grad, weight, score = torch.randn(33), torch.randn(33).to(weight), torch.randn(33).to(score)
    problem = ScoreGradProblem(grad, weight, score, True, 0.7, score.dtype)
    found = score_grad(grad, weight, score, binary=True, scale=0.7)
    check_close(found, expected_grad(problem), score.dtype)
    assert score_grad(grad, weight, score, dtype=torch.float64).dtype == torch.float64


def straight_through(weight, mask, magnitude, binary):
    """A masked weight whose mask has the derivative 1 by the magnitude of the scores."""
    soft = mask + magnitude - magnitude.detach()
    return soft * (weight.abs() if binary else weight)


@pytest.mark.parametrize("binary", [False, True])
def test_the_gradient_is_that_of_the_straight_through_estimator(binary):
    """The derivative by the score through its magnitude, of kept and of dropped weights."""
    weight, score, outer = torch.randn(3, 4, 3, 3, 3).double()
    score[0, 0] = 0.0
    leaf = score.clone().requires_grad_()
    masked = straight_through(weight, (score.abs() > 0.5).double(), leaf.abs(), binary)
    (masked * 0.7 * outer).sum().backward()
    found = score_grad(outer, weight, score, binary=binary, scale=0.7)
    torch.testing.assert_close(found, leaf.grad)


def test_wrong_arguments():
    weight = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"grad is \[4\]; expected the weight's \[4, 3\]"):
        score_grad(torch.ones(4), weight, weight)
    with pytest.raises(ValueError, match=r"score is \[3\]; expected the weight's \[4, 3\]"):
        score_grad(weight, weight, torch.ones(3))
    with pytest.raises(TypeError, match=r"score is of torch\.bool; expected floating point"):
        score_grad(weight, weight, weight > 0)
