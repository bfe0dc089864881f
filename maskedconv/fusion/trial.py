"""One forward and backward pass of a model that leaves no trace in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from maskedconv.nn.as_before import buffers_restored, randomness_restored
from maskedconv.nn.saved_storages import saved_storages

_SEED = 0


class Trial(NamedTuple):
    """The results of a pass.

    Attributes:
        outputs: the tensors that the model returns.
        gradients: of the parameters, of a fixed weighted sum of the outputs.
        buffers: the model's buffers afterwards, such as running statistics.
        kept: bytes that were kept for backward, apart from parameters and buffers.
    """

    outputs: list[Tensor]
    gradients: list[Tensor]
    buffers: list[Tensor]
    kept: int


def try_model(model: nn.Module, inputs: Sequence[Any], run: Callable[..., Any]) -> Trial:
    """Runs ``run(*inputs)``, which calls ``model``, and its backward pass.

    Buffers are restored, gradients of parameters are not touched, and random numbers are the same
    in each trial.

    Raises:
        ValueError: nothing that the model returns depends on a parameter that is learned.
    """
    with buffers_restored(model), torch.enable_grad(), randomness_restored(model):
        torch.manual_seed(_SEED)
        kept: list[int] = []
        own = [*model.parameters(), *model.buffers()]
        with saved_storages(own, lambda one: kept.append(one.untyped_storage().nbytes())):
            results = run(*inputs)
        outputs = [one for one in tree_leaves(results) if isinstance(one, Tensor)]
        gradients = _gradients(model, outputs)
        buffers = [one.clone() for one in model.buffers()]
    return Trial([one.detach() for one in outputs], gradients, buffers, sum(kept))


def difference(trial: Trial, plain: Trial) -> str:
    """The part of a trial that differs from the plain model's; empty if none does.

    On the CPU the bits are equal. The tolerance is for a GPU, whose sums may have another order. It
    is relative to the tensor itself, and for gradients to the largest one: the gradient of a bias
    before a BatchNorm is zero except for rounding.
    """
    for part in ("outputs", "gradients", "buffers"):
        ours, others = getattr(trial, part), getattr(plain, part)
        scales = _largest_norms(others) if part == "gradients" else {}
        near = partial(_is_near, scales=scales)
        if len(ours) != len(others) or not all(map(near, ours, others)):
            return part
    return ""


def _gradients(model: nn.Module, outputs: Sequence[Tensor]) -> list[Tensor]:
    learned = [one for one in model.parameters() if one.requires_grad]
    results = [one for one in outputs if one.requires_grad]
    if not learned or not results:
        raise ValueError(
            "model has no output that depends on a parameter that requires a gradient, so nothing "
            "is kept for backward"
        )
    weights = [torch.randn_like(one) for one in results]
    gradients = torch.autograd.grad(results, learned, weights, allow_unused=True)
    return [one for one in gradients if one is not None]


def _largest_norms(tensors: Sequence[Tensor]) -> dict[torch.dtype, float]:
    """The largest finite norm of the tensors of each type."""
    found: dict[torch.dtype, float] = {}
    for one in tensors:
        norm = float(one.double().norm()) if one.is_floating_point() else math.inf
        if math.isfinite(norm):
            found[one.dtype] = max(norm, found.get(one.dtype, 0.0))
    return found


def _is_near(value: Tensor, expected: Tensor, scales: Mapping[torch.dtype, float]) -> bool:
    """Whether two tensors differ by √ε of the norm in ``scales``, or of their own, at most."""
    if torch.equal(value, expected):
        return True
    if not expected.is_floating_point() or value.shape != expected.shape:
        return False
    error = float((value - expected).double().norm())
    scale = scales.get(expected.dtype, float(expected.double().norm()))
    # Written so that NaN is not near.
    return error <= math.sqrt(torch.finfo(expected.dtype).eps) * scale
