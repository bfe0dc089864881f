"""masked_weight: the weight of a supermask, its threshold, and the gradient of its scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskedconv.checks import check_int
from maskedconv.ops.dispatch import Operator, dispatch
from maskedconv.ops.masked_weight import cuda, native, reference, triton
from maskedconv.ops.masked_weight.packed_mask import check_bits, pack_mask, unpack_bits, unpack_mask
from maskedconv.ops.masked_weight.problem import (
    MaskProblem,
    ScoreGradProblem,
    Threshold,
    ThresholdProblem,
)

__all__ = [
    "APPLY",
    "BACKENDS",
    "FIND",
    "GRAD",
    "MaskProblem",
    "ScoreGradProblem",
    "Threshold",
    "ThresholdProblem",
    "check_bits",
    "find_threshold",
    "masked_weight",
    "pack_mask",
    "score_grad",
    "unpack_bits",
    "unpack_mask",
]

BACKENDS = {"reference": reference, "native": native, "cuda": cuda, "triton": triton}


def _masked_scores(backend: Any, problem: ThresholdProblem) -> Tensor:
    """The threshold is compared and timed as it is used: with a mask."""
    score, threshold = problem.score, backend.find_threshold(problem)
    masked: Tensor = backend.masked_weight(
        MaskProblem(score, score, threshold, False, 1.0, score.dtype)
    )
    return masked


FIND = Operator("find_threshold", BACKENDS, run=_masked_scores)
APPLY = Operator(
    "masked_weight", BACKENDS, run=lambda backend, problem: backend.masked_weight(problem)
)
GRAD = Operator("score_grad", BACKENDS, run=lambda backend, problem: backend.score_grad(problem))


def find_threshold(score: Tensor, num_kept: int) -> Threshold:
    """The threshold that keeps exactly the ``num_kept`` largest magnitudes of ``score``.

    Among equal magnitudes, those of the larger row-major index are kept. These are the last
    ``num_kept`` of a stable ascending sort, the choice of edge-popup's public code. Linear time;
    on a GPU, the host does not wait. Not differentiable.

    Args:
        score: floating point, of any shape. A NaN counts as the largest magnitude;
            :func:`masked_weight` yields NaN there.
        num_kept: from 0 to the number of scores.

    Raises:
        TypeError: ``score`` is not floating point, or ``num_kept`` no int.
        ValueError: ``num_kept`` is out of range, or MASKEDCONV_BACKEND not the name of a backend.
        RuntimeError: the backend that it names cannot run here.
    """
    _check_floating("score", score)
    if check_int("num_kept", num_kept, 0) > score.numel():
        raise ValueError(f"num_kept is {num_kept}; expected at most the {score.numel()} scores")
    if torch.compiler.is_compiling():
        return Threshold(*torch.ops.maskedconv.find_threshold(score, num_kept))
    backend, problem = dispatch(FIND, ThresholdProblem(score, num_kept))
    return backend.find_threshold(problem)


def masked_weight(
    weight: Tensor,
    score: Tensor,
    threshold: Threshold,
    *,
    binary: bool = False,
    scale: float = 1.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """``weight * scale`` where the score is kept, and 0 elsewhere (edge-popup, arXiv 1911.13299).

    NaN where the score is NaN. Not differentiable; :func:`score_grad` is the straight-through
    gradient of the scores.

    Args:
        weight, score: floating point, of equal shape, such as ``[O, I / groups, kH, kW]``.
        threshold: from :func:`find_threshold`. It may be that of many layers' scores together: then
            ``first`` is to be made relative to this layer; it may be negative.
        binary: ``sign(weight) * alpha * scale`` where kept, and alpha is the sum of the kept
            weights' magnitudes by their number, or 0 if none is kept (biprop, arXiv 2103.09377).
        scale: a factor of all elements.
        dtype: of the result; None for that of ``weight``. The result has the memory format of
            ``weight``.

    Raises:
        TypeError: a tensor is not floating point.
        ValueError: shapes differ, or MASKEDCONV_BACKEND is not the name of a backend.
        RuntimeError: the backend that it names cannot run here.
    """
    (value, first), dtype = threshold, dtype or weight.dtype
    _check_floating("weight", weight)
    _check_floating("score", score)
    _check_same_shape("score", score, weight)
    if value.shape or first.shape or value.dtype != score.dtype or first.dtype != torch.int64:
        raise ValueError(
            f"threshold is {list(value.shape)} of {value.dtype} and {list(first.shape)} of "
            f"{first.dtype}; expected [] of {score.dtype} and [] of torch.int64"
        )
    if torch.compiler.is_compiling():
        return torch.ops.maskedconv.masked_weight(weight, score, value, first, binary, scale, dtype)
    problem = MaskProblem(weight, score, threshold, binary, scale, dtype)
    backend, problem = dispatch(APPLY, problem)
    return backend.masked_weight(problem)


def score_grad(
    grad: Tensor,
    weight: Tensor,
    score: Tensor,
    *,
    binary: bool = False,
    scale: float = 1.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The straight-through gradient of every score, kept or not, in one pass.

    It is ``grad * weight * scale * sign(score)``, because the mask depends on the magnitude of the
    scores. The sign is 0 at 0, as PyTorch's. NaN where the score is NaN, as :func:`masked_weight`.

    Args:
        grad, weight, score: floating point, of equal shape: the gradient of the masked weight, the
            weight before the mask, and the scores.
        binary: ``grad * |weight| * scale * sign(score)`` instead: ``grad`` is then that of the mask
            before it is multiplied by ``sign(weight)``.
        scale: that of :func:`masked_weight`.
        dtype: of the result; None for that of ``score``. The result has the memory format of
            ``weight``.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`masked_weight`.
    """
    _check_floating("grad", grad)
    _check_floating("weight", weight)
    _check_floating("score", score)
    _check_same_shape("grad", grad, weight)
    _check_same_shape("score", score, weight)
    arguments = grad, weight, score, binary, scale, dtype or score.dtype
    if torch.compiler.is_compiling():
        return torch.ops.maskedconv.score_grad(*arguments)
    backend, problem = dispatch(GRAD, ScoreGradProblem(*arguments))
    return backend.score_grad(problem)


def _check_floating(argument: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{argument} is of {tensor.dtype}; expected floating point")


def _check_same_shape(argument: str, tensor: Tensor, weight: Tensor) -> None:
    if tensor.shape != weight.shape:
        raise ValueError(
            f"{argument} is {list(tensor.shape)}; expected the weight's {list(weight.shape)}"
        )


_LIBRARY = torch.library.Library("maskedconv", "FRAGMENT")
_LIBRARY.define("find_threshold(Tensor score, int num_kept) -> (Tensor, Tensor)")
_LIBRARY.define(
    "masked_weight(Tensor weight, Tensor score, Tensor value, Tensor first, bool binary, "
    "float scale, ScalarType dtype) -> Tensor"
)
_LIBRARY.define(
    "score_grad(Tensor grad, Tensor weight, Tensor score, bool binary, float scale, "
    "ScalarType dtype) -> Tensor"
)


@torch.library.impl(_LIBRARY, "find_threshold", "CompositeExplicitAutograd")
def _registered_find(*arguments: Any) -> tuple[Tensor, Tensor]:
    return find_threshold(*arguments)


@torch.library.impl(_LIBRARY, "masked_weight", "CompositeExplicitAutograd")
def _registered_apply(
    weight: Tensor,
    score: Tensor,
    value: Tensor,
    first: Tensor,
    binary: bool,
    scale: float,
    dtype: torch.dtype,
) -> Tensor:
    threshold = Threshold(value, first)
    return masked_weight(weight, score, threshold, binary=binary, scale=scale, dtype=dtype)


@torch.library.impl(_LIBRARY, "score_grad", "CompositeExplicitAutograd")
def _registered_grad(
    grad: Tensor, weight: Tensor, score: Tensor, binary: bool, scale: float, dtype: torch.dtype
) -> Tensor:
    return score_grad(grad, weight, score, binary=binary, scale=scale, dtype=dtype)


@torch.library.register_fake("maskedconv::find_threshold", lib=_LIBRARY)
def _fake_find(score: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return score.new_empty(()), score.new_empty((), dtype=torch.int64)


@torch.library.register_fake("maskedconv::masked_weight", lib=_LIBRARY)
def _fake_apply(weight: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(weight, dtype=rest[-1])


@torch.library.register_fake("maskedconv::score_grad", lib=_LIBRARY)
def _fake_grad(_: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(weight, dtype=rest[-1])
