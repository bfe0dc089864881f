"""The supermask's operator: its numbers, and its time beside that of sorting all scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.gpu_check import shapes
from bench.gpu_check.device import Device
from bench.gpu_check.problems import verdict
from bench.gpu_check.record import NotHere
from bench.masked_weights import KEPT, sort_and_multiply, tensors
from bench.timing import quantiles
from maskedconv.ops.agreement import Unwritten
from maskedconv.ops.masked_weight import (
    BACKENDS,
    MaskProblem,
    ScoreGradProblem,
    Threshold,
    ThresholdProblem,
)

REPETITIONS = {"cuda": 30, "cpu": 3}
# One rounding of a product in float32, and one of the result.
EPS = {torch.float32: 2.0**-22, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}


def check(backend: str, device: Device) -> dict[str, Any]:
    """The mask must be a stable sort's; weights and gradients may differ from float64 by rounding.

    Every shape is checked with scores that differ and with many that are equal.
    """
    right, repeats = True, True
    for shape in shapes.masked(device.rehearsal):
        weight, score, grad = tensors(shape, device.name)
        for scores in (score, (score * 4).round() / 4):
            with Unwritten():
                found, again = (_results(backend, weight, scores, grad) for _ in range(2))
            right &= _is_right(found, weight, scores, grad)
            repeats &= all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    return {
        "backend": backend,
        "shape": list(shapes.masked(device.rehearsal)[0]),
        "dtype": "float32",
        "n": KEPT,
        **verdict(BACKENDS[backend], right, repeats),
    }


def _results(backend: str, weight: Tensor, score: Tensor, grad: Tensor) -> list[Tensor]:
    """The masks as weights of one, masked weights and gradients, by dtype and binary or not."""
    kernels, found = BACKENDS[backend], []
    threshold = find(backend, score)
    ones = torch.ones_like(weight)
    for binary in (False, True):
        for dtype in EPS:
            problem = MaskProblem(weight, score, threshold, binary, 1.5, dtype)
            found.append(kernels.masked_weight(problem))
        gradient = ScoreGradProblem(grad, weight, score, binary, 1.5, torch.float32)
        found.append(kernels.score_grad(gradient))
    mask = MaskProblem(ones, score, threshold, False, 1.0, torch.float32)
    return [kernels.masked_weight(mask), *found]


def _is_right(found: list[Tensor], weight: Tensor, score: Tensor, grad: Tensor) -> bool:
    mask = torch.zeros_like(weight, dtype=torch.float64)
    num_kept = int(KEPT * score.numel())
    order = score.abs().flatten().sort(stable=True).indices
    mask.view(-1)[order[score.numel() - num_kept :]] = 1
    alpha = (weight.double() * mask).abs().sum() / num_kept
    weights = (weight.double(), weight.double().sign() * alpha)
    sign = score.double().sign()
    factors = (weight.double() * sign, weight.double().abs() * sign)
    expected = [mask]
    for values, factor in zip(weights, factors, strict=True):
        expected += [values * mask * 1.5] * len(EPS) + [grad.double() * factor * 1.5]
    limits = [0.0, *(*EPS.values(), EPS[torch.float32]) * 2]
    # Written so that a NaN is wrong.
    return all(
        bool(((a.double() - b).abs() <= limit * b.abs() + 1e-7 * (limit > 0)).all())
        for a, b, limit in zip(found, expected, limits, strict=True)
    )


def timed(name: str, candidate: str, device: Device) -> dict[str, Any]:
    """Threshold and masked weight, by one of our kernels or by sorting all scores."""
    shape = next(s for s in shapes.masked(device.rehearsal) if shapes.masked_name(s) == name)
    weight, score, _ = tensors(shape, device.name)
    backend = "native" if device.rehearsal and candidate == "cuda" else candidate

    def function() -> Tensor:
        if backend == "sort":
            return sort_and_multiply(weight, score, int(KEPT * score.numel())).bfloat16()
        problem = MaskProblem(weight, score, find(backend, score), False, 1.0, torch.bfloat16)
        masked: Tensor = BACKENDS[backend].masked_weight(problem)
        return masked

    times = device.times(device.capture(function), REPETITIONS[device.name])
    about = {"candidate": candidate, "shape": list(shape), "dtype": "float32", "n": KEPT}
    return {**about, "ms": quantiles(times.milliseconds), "held": times.held}


def find(backend: str, score: Tensor) -> Threshold:
    """The threshold of a backend.

    Raises:
        NotHere: it cannot run here.
    """
    problem = ThresholdProblem(score, int(KEPT * score.numel()))
    if reason := BACKENDS[backend].cannot_run(problem):
        raise NotHere(reason)
    threshold: Threshold = BACKENDS[backend].find_threshold(problem)
    return threshold
