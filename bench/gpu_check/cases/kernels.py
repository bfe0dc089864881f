"""Step 3: times the kernels by graph replay, with a cold cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.ceilings import weight_gradient
from bench.gpu_check import batch_norms, masked_weights, shapes
from bench.gpu_check.device import Device
from bench.gpu_check.plan import UNCONFIRMED
from bench.gpu_check.problems import about_shape, by_name, problem_of
from bench.gpu_check.record import NotHere
from bench.layers import Layer
from bench.timing import quantiles
from maskedconv.ops.aten import convolution_grads
from maskedconv.ops.weight_grad import BACKENDS, WeightGradProblem, reference

REPETITIONS = {"cuda": 30, "cpu": 3}


def run(case: str, device: Device, options: dict[str, Any]) -> dict[str, Any]:
    name, _, candidate = case.partition(" | ")
    if name.startswith("masked_weight"):
        return masked_weights.timed(name, candidate, device)
    if name.partition(" ")[0] in batch_norms.OPERATORS:
        return batch_norms.timed(name, candidate, device)
    shape = by_name(shapes.table(device.rehearsal), name)
    function = candidate_of(candidate, problem_of(shape, device.name), device)
    times = device.times(device.capture(function), REPETITIONS[device.name])
    layer = Layer(*shape[:4], shape.batch, shape.stride)
    moved, operations = weight_gradient(layer, shape.filters, getattr(torch, shape.dtype).itemsize)
    return {
        "candidate": candidate,
        **about_shape(shape, device),
        "ms": quantiles(times.milliseconds),
        "held": times.held,
        "least_bytes": moved,
        "least_operations": operations,
    }


def candidate_of(name: str, problem: WeightGradProblem, device: Device) -> Callable[[], object]:
    """One of our kernels, PyTorch's gradient of the slice padded to 8 filters, or of all filters.

    If there is a prologue, PyTorch's candidates compute the activation first.
    """
    if name in ("slice", "full"):
        out_channels = problem.grad_output.size(1)
        count = (
            min(out_channels, -(-problem.shape[0] // 8) * 8) if name == "slice" else out_channels
        )
        return lambda: _library(problem, count)
    if device.rehearsal and name in ("cuda", UNCONFIRMED):
        name = "native"
    if reason := BACKENDS[name].cannot_run(problem):
        raise NotHere(reason)
    return lambda: BACKENDS[name].run(problem)


def _library(problem: WeightGradProblem, count: int) -> torch.Tensor:
    if problem.scale is not None:
        problem = reference.without_prologue(problem)
    input, grad = problem.input, problem.grad_output[:, :count]
    weight = input.new_empty((count, *problem.shape[1:])).to(memory_format=torch.channels_last)
    return convolution_grads(grad, input, weight, problem.geometry, (False, True))[1]
