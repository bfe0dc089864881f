"""bn_relu: BatchNorm with known moments and ReLU, element by element, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskedconv.ops.bn_relu import native, reference
from maskedconv.ops.bn_relu.problem import Gradients, Needs, Normalisation, NormProblem
from maskedconv.ops.choice import Choice, Ranking, choose, forced_backend, record
from maskedconv.ops.plain import resolved, why_not_plain

__all__ = ["BACKENDS", "NormProblem", "Normalisation", "bn_relu", "bn_relu_backward", "runs_native"]

BACKENDS = {"reference": reference, "native": native}

_RANKING = Ranking(("native", "reference"), "the first that can")


def rank(problem: NormProblem) -> Ranking:
    """Backends from the fastest to the one that always runs, for this problem."""
    return _RANKING


def bn_relu(problem: NormProblem) -> Tensor:
    """``relu(bn(input))`` in new dense memory; not differentiable.

    Raises:
        ValueError: MASKEDCONV_BACKEND names no backend.
        RuntimeError: the backend that it or ``problem`` names cannot run here.
    """
    if torch.compiler.is_compiling():  # which fuses PyTorch's operators itself
        return reference.run(problem)
    problem = NormProblem(resolved(problem.input), problem.norm, problem.backend)
    return _backend(problem, "bn_relu").run(problem)


def bn_relu_backward(
    problem: NormProblem,
    grad: Tensor,
    needs: Needs,
    activation: Tensor | None = None,
    in_place: bool = False,
) -> Gradients:
    """Gradients of the input, γ and β, where ``needs`` asks for them.

    Args:
        grad: that of the result.
        activation: the result itself, where it is at hand.
        in_place: ``grad`` may be changed.

    Raises:
        ValueError, RuntimeError: as :func:`bn_relu`.
    """
    if torch.compiler.is_compiling():
        return reference.run_backward(problem, grad, needs, activation, in_place)
    input, grad = resolved(problem.input), resolved(grad)
    problem = NormProblem(input, problem.norm, problem.backend, grad)
    backend = _backend(problem, "bn_relu_backward")
    return backend.run_backward(problem, grad, needs, activation, in_place)


def runs_native(problem: NormProblem) -> bool:
    """Whether the compiled passes compute this, which read a view as fast as dense memory."""
    if torch.compiler.is_compiling() or forced_backend(problem.backend) not in ("", "native"):
        return False
    return not (why_not_plain(problem.tensors()) or native.cannot_run(problem))


def _backend(problem: NormProblem, operator: str) -> Any:
    forced = forced_backend(problem.backend)
    if forced and forced not in BACKENDS:
        record(Choice(operator, "reference", f"{forced} has no kernel for it", {}))
        return reference
    return BACKENDS[choose(operator, BACKENDS, problem, rank)]
