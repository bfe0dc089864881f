"""bn_relu: BatchNorm with given moments and ReLU, element-wise, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskedconv.ops.bn_relu import cuda, native, reference, triton
from maskedconv.ops.bn_relu.agreement import compare_backward, compare_forward
from maskedconv.ops.bn_relu.problem import (
    NO_MEMORY,
    BackwardMemory,
    Gradients,
    Needs,
    Normalisation,
    NormProblem,
    readable_summand,
)
from maskedconv.ops.dispatch import Operator, chosen_backend, dispatch

__all__ = [
    "BACKENDS",
    "BACKWARD",
    "FORWARD",
    "BackwardMemory",
    "Gradients",
    "NormProblem",
    "Normalisation",
    "bn_relu",
    "bn_relu_backward",
    "readable_summand",
    "runs_kernel",
]

BACKENDS = {"reference": reference, "native": native, "cuda": cuda, "triton": triton}
FORWARD = Operator("bn_relu", BACKENDS, compare=compare_forward)


def _gradients(backend: Any, problem: NormProblem) -> tuple[Tensor, ...]:
    grads = backend.run_backward(problem, problem.grad, (True, True, True))
    return tuple(grad for grad in grads if grad is not None)


BACKWARD = Operator("bn_relu_backward", BACKENDS, run=_gradients, compare=compare_backward)


def bn_relu(problem: NormProblem) -> Tensor:
    """``relu(bn(input))`` in new dense memory; not differentiable.

    Raises:
        ValueError: MASKEDCONV_BACKEND is not the name of a backend.
        RuntimeError: the forced backend cannot run here.
    """
    if torch.compiler.is_compiling():  # the compiler fuses PyTorch's operators itself
        return reference.run(problem)
    backend, problem = dispatch(FORWARD, problem)
    return backend.run(problem)


def bn_relu_backward(
    problem: NormProblem, grad: Tensor, needs: Needs, memory: BackwardMemory = NO_MEMORY
) -> Gradients:
    """Gradients of the input, γ and β, as selected by ``needs``.

    Args:
        grad: gradient of the result.
        memory: what may be used besides.

    Raises:
        ValueError, RuntimeError: as :func:`bn_relu`.
    """
    if torch.compiler.is_compiling():
        return reference.run_backward(problem, grad, needs, memory)
    problem = NormProblem(problem.input, problem.norm, problem.backend, grad)
    backend, problem = dispatch(BACKWARD, problem)
    return backend.run_backward(problem, problem.grad, needs, memory)


def runs_kernel(problem: NormProblem) -> bool:
    """Whether a kernel computes this. A kernel reads views as fast as dense memory."""
    if torch.compiler.is_compiling():
        return False
    return chosen_backend(FORWARD, problem) is not reference
