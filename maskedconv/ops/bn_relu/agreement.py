"""How the outputs of bn_relu and of its backward pass are compared: :mod:`..agreement`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.agreement import NOISE, Output, Outputs, least_step, pieces
from maskedconv.ops.bn_relu.problem import NormProblem

_IMAGES = (0, 2, 3)


def compare_forward(problem: NormProblem, results: Outputs, expected: Outputs) -> Iterator[Output]:
    """The activation. Its terms are ``x * scale`` and ``shift``."""
    scale, shift = problem.norm.scale_shift()
    terms = scale.abs() * _largest(problem.input) + shift.abs()
    yield Output("", results[0], expected[0], _of_images(NOISE * terms))


def compare_backward(problem: NormProblem, results: Outputs, expected: Outputs) -> Iterator[Output]:
    """The gradients of the input, γ and β, as far as there are γ and β.

    Whether the ReLU is open is undecided where its argument is rounding. There the input's gradient
    is not compared, and the sums may differ by what passes.
    """
    input, norm, _, grad = problem
    assert grad is not None
    mean, _ = norm.moments()
    scale, _ = norm.scale_shift()
    farthest = torch.maximum(input.amax(_IMAGES) - mean, mean - input.amin(_IMAGES))
    reach = 1 + farthest * norm.inverse_deviation()  # of the normalised input
    sums = _sums(problem, grad)
    rounding = NOISE * sums.passing + sums.undecided
    share = rounding * input.size(1) / input.numel()
    of_input = _of_images(scale.abs() * reach.square() * (NOISE * _largest(grad) + share))
    for x, found, right in pieces(input, results[0], expected[0]):
        undecided = _is_undecided(x, problem)
        found, right = (part.masked_fill(undecided, 0.0) for part in (found, right))
        yield Output("grad_input", found, right, of_input)
    sums_of = (("grad_weight", norm.weight, rounding * reach), ("grad_bias", norm.bias, rounding))
    given = [(name, leeway) for name, like, leeway in sums_of if like is not None]
    for (name, leeway), found, right in zip(given, results[1:], expected[1:], strict=True):
        yield Output(name, found, right, leeway)


class _Sums(NamedTuple):
    """Sums of ``|grad|`` over all pixels, ``[C]``: of all, and of those that are undecided."""

    passing: Tensor
    undecided: Tensor


def _sums(problem: NormProblem, grad: Tensor) -> _Sums:
    sums = torch.zeros((2, grad.size(1)), dtype=torch.float64, device=grad.device)
    for x, part in pieces(problem.input, grad):
        size = part.abs().double()
        sums[0] += size.sum(_IMAGES)
        sums[1] += size.mul_(_is_undecided(x, problem)).sum(_IMAGES)
    return _Sums(*sums)


def _is_undecided(x: Tensor, problem: NormProblem) -> Tensor:
    """Whether the sign of the ReLU's argument may differ between two computations of it."""
    scale, shift = (_of_images(part.double()) for part in problem.norm.scale_shift())
    product = x.double() * scale
    terms = product.abs() + shift.abs()
    # A reference in half precision rounds small arguments to 0.
    return (product + shift).abs() <= NOISE * terms + least_step(x.dtype)


def _largest(images: Tensor) -> Tensor:
    """The largest magnitude of each channel."""
    return torch.maximum(images.amax(_IMAGES), -images.amin(_IMAGES))


def _of_images(part: Tensor) -> Tensor:
    return part.view(-1, 1, 1)
