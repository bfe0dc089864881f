"""Step 2: compares every kernel with float64, and two of its runs with each other."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from bench.gpu_check import batch_norms, masked_weights, shapes
from bench.gpu_check.device import Device
from bench.gpu_check.problems import about_shape, by_name, errors, exact, problem_of, verdict
from bench.gpu_check.record import NotHere
from bench.gpu_check.shapes import Shape
from maskedconv.ops.agreement import Unwritten
from maskedconv.ops.pack_filters import BACKENDS as PACKERS
from maskedconv.ops.pack_filters import PackProblem
from maskedconv.ops.weight_grad import BACKENDS

# Bits of the mantissa that operands are rounded to; float32 is rounded to TF32.
EPS = {"bfloat16": 2.0**-8, "float32": 2.0**-11}


def run(case: str, device: Device, options: dict[str, Any]) -> dict[str, Any]:
    name, _, backend = case.partition(" | ")
    if name == "pack_filters":
        return packing(backend, device)
    if name == "masked_weight":
        return masked_weights.check(backend, device)
    if name in batch_norms.OPERATORS:
        return batch_norms.check(name, backend, device)
    shape = by_name(shapes.numbers(device.rehearsal), name)
    return {"backend": backend, **about_shape(shape, device), **gradient(shape, backend, device)}


def gradient(shape: Shape, backend: str, device: Device) -> dict[str, Any]:
    """A kernel's error may be at most twice that of PyTorch's own operator, plus a rounding."""
    problem = problem_of(shape, device.name)
    if reason := BACKENDS[backend].cannot_run(problem):
        raise NotHere(reason)
    with Unwritten():
        first, second = (BACKENDS[backend].run(problem) for _ in range(2))
    expected, plain = _expected(shape, device.name)
    error = errors(first, expected)
    limit = {name: 2 * plain[name] + EPS[shape.dtype] for name in error}
    # Written so that a NaN is wrong.
    right = first.shape == expected.shape and all(error[name] <= limit[name] for name in error)
    found = verdict(BACKENDS[backend], right, torch.equal(first, second))
    return {**found, "error": error, "plain_error": plain}


@functools.lru_cache(maxsize=64)
def _expected(shape: Shape, device_name: str) -> tuple[Tensor, dict[str, float]]:
    """The float64 gradient, and the error of PyTorch's operator; cached, because both are small."""
    problem = problem_of(shape, device_name)
    expected = exact(problem)
    return expected, errors(BACKENDS["reference"].run(problem), expected)


def packing(backend: str, device: Device) -> dict[str, Any]:
    """Packs float32 filters into a bfloat16 weight; must be exact for every slice dimension."""
    whole = torch.randn(64, 48, 3, 3, device=device.name)
    right = True
    for slice_dim in range(4):
        parts = whole.narrow(slice_dim, 0, 1), whole.narrow(slice_dim, 1, whole.size(slice_dim) - 1)
        problem = PackProblem(*parts, slice_dim, torch.bfloat16, torch.channels_last)
        if reason := PACKERS[backend].cannot_run(problem):
            raise NotHere(reason)
        with Unwritten():
            packed = PACKERS[backend].run(problem)
        right &= torch.equal(packed, whole.bfloat16())
    about = {"backend": backend, "shape": list(whole.shape), "dtype": "bfloat16", "n": 1}
    return {"status": "ok" if right else "wrong", **about}
