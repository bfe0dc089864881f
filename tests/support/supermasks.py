"""Scores, weights and masks for the tests of masked_weight, and what is expected, in float64."""

from __future__ import annotations

import torch

from maskedconv.ops.masked_weight import MaskProblem, ScoreGradProblem, ThresholdProblem

INF, NAN = float("inf"), float("nan")


def _ties(shape):
    return torch.randint(-2, 3, shape).float() / 4


def _edges(shape):
    values = torch.tensor([0.0, -0.0, INF, -INF, 1e-45, -1e-45, 1e-40, 2**-126, 3.4e38, 1.0])
    return values[torch.randint(len(values), shape)]


def _near(shape):
    """Values that differ in the last bits only."""
    return (torch.full(shape, 0.75).view(torch.int32) + torch.randint(3, shape).int()).view(
        torch.float32
    )


SCORES = {
    "uniform": lambda shape: torch.rand(shape) - 0.5,
    "normal": torch.randn,
    "ties": _ties,
    "equal": lambda shape: torch.full(shape, -0.25),
    "zeros": lambda shape: torch.zeros(shape) * torch.randn(shape).sign(),
    "edges": _edges,
    "near": _near,
}
LAYOUTS = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.to(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "view": lambda t: torch.cat([t, t], 1)[:, : t.size(1)],
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def kept_by_sort(score, num_kept):
    """The last ``num_kept`` of a stable ascending sort by magnitude."""
    order = score.abs().flatten().sort(stable=True).indices
    mask = torch.zeros(score.numel(), dtype=torch.bool)
    mask[order[score.numel() - num_kept :]] = True
    return mask.view(score.shape)


def expected_weight(weight, mask, binary, scale):
    """The masked weight in float64."""
    kept = torch.where(mask, weight.double(), 0.0)
    if not binary:
        return kept * scale
    alpha = kept.abs().sum() / max(int(mask.sum()), 1)
    return kept.sign() * alpha * scale


def expected_grad(problem):
    """The gradient of the scores in float64."""
    grad, weight, score = (tensor.double() for tensor in problem.tensors())
    factor = weight.abs() if problem.binary else weight
    sign = torch.where(score.isnan(), score, score.sign())
    return grad * factor * sign * problem.scale


def check_signs(backend):
    """Gradients of scores that are zeros, not finite, or denormal, with and without a NaN."""
    kinds = [0.0, -0.0, INF, -INF, 1e-45, -1e-45, 2.0, -0.5, NAN, -NAN]
    score = torch.tensor(kinds).repeat(13)
    grad, weight = torch.randn(2, score.numel())
    for binary in (False, True):
        problem = ScoreGradProblem(grad, weight, score, binary, 1.5, torch.float32)
        found = backend.score_grad(problem)
        check_close(found, expected_grad(problem), torch.float32)
        assert found[score == 0].eq(0).all()
        assert torch.equal(found.isnan(), score.isnan())


def counts_of(score):
    """The numbers of kept scores that a test goes through."""
    size = score.numel()
    return sorted({0, min(1, size), size // 3, size // 2, max(size - 1, 0), size})


def check_close(found, expected, dtype):
    """Asserts equality except for the roundings of float32 arithmetic and of the result."""
    assert found.dtype == dtype
    relative = torch.finfo(dtype).eps + 4 * torch.finfo(torch.float32).eps
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    torch.testing.assert_close(
        found.double(), expected, rtol=relative, atol=2 * smallest, equal_nan=True
    )


def check_backend(backend, weight, score, num_kept):
    """The mask is exactly the sort's; weights and gradients are those of the formulae."""
    threshold = backend.find_threshold(ThresholdProblem(score, num_kept))
    mask = kept_by_sort(score, num_kept)
    found = mask_of(score, threshold)
    assert torch.equal(found, mask), (score, num_kept, threshold)
    check_weights(backend, weight, score, threshold, mask)


def mask_of(score, threshold):
    """The definition of a threshold, on plain numbers."""
    value, first = threshold
    assert (value.shape, first.shape) == ((), ())
    assert (value.dtype, first.dtype) == (score.dtype, torch.int64)
    magnitude, index = score.abs(), torch.arange(score.numel()).view(score.shape)
    return (magnitude > value) | ((magnitude == value) & (index >= first))


def check_weights(backend, weight, score, threshold, mask):
    for turn, dtype in enumerate(DTYPES):
        for binary in (False, True):
            scale = (1.0, 1.5, -0.3)[turn]
            problem = MaskProblem(weight, score, threshold, binary, scale, dtype)
            found = backend.masked_weight(problem)
            assert found.stride() == torch.empty_like(weight).stride()
            check_close(found, expected_weight(weight, mask, binary, scale), dtype)
            grad = torch.randn(weight.shape).to(dtype)
            problem = ScoreGradProblem(grad, weight, score, binary, scale, torch.float32)
            found = backend.score_grad(problem)
            assert found.stride() == torch.empty_like(weight).stride()
            check_close(found, expected_grad(problem), torch.float32)
