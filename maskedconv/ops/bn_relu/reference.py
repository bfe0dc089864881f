"""bn_relu by PyTorch's own operators."""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.bn_relu.problem import NO_MEMORY, BackwardMemory, Gradients, Needs, NormProblem
from maskedconv.ops.geometry import dense, memory_format_of
from maskedconv.ops.plain import is_plain


def cannot_run(problem: NormProblem) -> str:
    """Empty, because the reference takes every problem."""
    return ""


def run(problem: NormProblem) -> Tensor:
    """The activation, in new dense memory and the dtype of the input."""
    normalised = _normalised(problem)
    # torch 2.11's compiler loses the gradient of a Function's result that was changed in place
    # (pytorch issue 180642).
    return normalised.relu() if torch.compiler.is_compiling() else normalised.relu_()


def run_backward(
    problem: NormProblem, grad: Tensor, needs: Needs, memory: BackwardMemory = NO_MEMORY
) -> Gradients:
    """The gradients; see :func:`maskedconv.ops.bn_relu.bn_relu_backward` for the arguments."""
    mask = _normalised(problem) if memory.activation is None else memory.activation
    threshold = torch.ops.aten.threshold_backward
    # Transforms and tracers do not support the in-place variant.
    if memory.in_place and not torch.compiler.is_compiling() and is_plain(grad):
        grad = threshold.grad_input(grad, mask, 0, grad_input=grad)
    else:
        grad = threshold(grad, mask, 0)
    grads = _batch_norm_backward(problem, grad, needs)
    if grads[0] is None or memory.summand is None:
        return grads
    if memory.added_to is not None:
        return torch.add(memory.summand, grads[0], out=memory.added_to), *grads[1:]
    return grads[0].add_(memory.summand), *grads[1:]


def _normalised(problem: NormProblem) -> Tensor:
    """``bn(input)`` in new dense memory and the dtype of the input."""
    input, norm, *_ = problem
    if _is_one_product(input, norm.dtype):
        return normalised(input, *norm.scale_shift())
    weight, bias = (None if part is None else part.to(norm.dtype) for part in norm[:2])
    return torch.native_batch_norm(
        dense(input), weight, bias, *norm.moments(), False, 0.0, norm.eps
    )[0]


def normalised(input: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``input * scale[c] + shift[c]`` with scale and shift ``[C]``, as :func:`_normalised`."""
    if _is_one_product(input, scale.dtype):
        return torch.addcmul(shift.view(-1, 1, 1), input, scale.view(-1, 1, 1))
    mean, var = torch.zeros_like(scale), torch.ones_like(scale)
    return torch.native_batch_norm(dense(input), scale, shift, mean, var, False, 0.0, 0.0)[0]


def _is_one_product(input: Tensor, dtype: torch.dtype) -> bool:
    """Otherwise PyTorch's BatchNorm is faster, and takes mixed dtypes."""
    return memory_format_of(input) == torch.channels_last and input.dtype == dtype


def _batch_norm_backward(problem: NormProblem, grad: Tensor, needs: Needs) -> Gradients:
    """The gradients, from the gradient of ``bn(input)``."""
    input, norm, *_ = problem
    mean, _ = norm.moments()
    weight = None if norm.weight is None else norm.weight.to(norm.dtype)
    if input.numel() == 0:  # PyTorch's CPU kernel divides by the size
        grads = (input, torch.zeros_like(mean), torch.zeros_like(mean))
    else:
        # PyTorch's CPU kernels read the gradient in the memory format of the input; vmap supports
        # only one.
        known = torch.compiler.is_compiling() or is_plain(grad)
        layout = memory_format_of(input) if known else torch.contiguous_format
        # Constant moments change only the input's gradient. PyTorch's own variant for them does
        # not run in a graph of make_fx (torch 2.14).
        passed = (needs[0] and norm.uses_batch_stats, *needs[1:])
        grads = torch.ops.aten.native_batch_norm_backward(
            dense(grad, layout), dense(input, layout), weight, None, None, mean,
            norm.inverse_deviation(), True, norm.eps, passed,
        )  # fmt: skip
        if needs[0] and not norm.uses_batch_stats:
            scale, _ = norm.scale_shift()
            grads = (grad * scale.view(-1, 1, 1), *grads[1:])
    types = (input, norm.weight, norm.bias)
    grad_input, grad_weight, grad_bias = (
        value.to(like.dtype) if needed and like is not None else None
        for value, like, needed in zip(grads, types, needs, strict=True)
    )
    return grad_input, grad_weight, grad_bias
