"""Tensors for a shape, its weight gradient in float64, and errors relative to it."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from bench.gpu_check.device import Device
from bench.gpu_check.shapes import Shape
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad import WeightGradProblem


def by_name(shapes: tuple[Shape, ...], name: str) -> Shape:
    """The shape whose text is ``name``."""
    return next(shape for shape in shapes if str(shape) == name)


@functools.lru_cache(maxsize=1)
def problem_of(shape: Shape, device_name: str) -> WeightGradProblem:
    """The problem of a shape, always with the same values; cached for the next case."""
    generator = torch.Generator(device_name).manual_seed(0)
    return weight_grad_problem(shape, device=device_name, generator=generator)


def weight_grad_problem(shape: Shape, **options: Any) -> WeightGradProblem:
    """The problem of a shape with random values.

    Args:
        options: of ``torch.randn`` and ``torch.rand``, such as the device.
    """

    def images(channels: int, size: int) -> Tensor:
        values = torch.randn(shape.batch, size, size, channels, **options)
        return values.to(getattr(torch, shape.dtype)).permute(0, 3, 1, 2)

    input = images(shape.pitch or shape.channels, shape.size)[:, : shape.channels]
    grad = images(shape.out_channels, shape.out_size)
    affine = torch.rand(2, shape.channels, **options).unbind() if shape.prologue else (None, None)
    geometry = ConvGeometry((shape.stride,) * 2, (shape.padding,) * 2, (1, 1), 1)
    bank = torch.Size((shape.filters, shape.channels, shape.kernel, shape.kernel))
    return WeightGradProblem(input, grad, bank, 0, geometry, *affine)


def exact(problem: WeightGradProblem) -> Tensor:
    """The gradient in float64 by one product per tap, independent of the compared library."""
    x = problem.input.double()
    if problem.scale is not None and problem.shift is not None:
        x = (x * problem.scale.view(-1, 1, 1) + problem.shift.view(-1, 1, 1)).relu_()
        x = x.to(problem.input.dtype).double()  # every kernel rounds it
    filters, _, rows, columns = problem.shape
    grad = problem.grad_output[:, :filters].double()
    (step, _), (pad, _) = problem.geometry.stride, problem.geometry.padding
    x = torch.nn.functional.pad(x, (pad, pad, pad, pad))
    height, width = grad.shape[2:]
    out = x.new_empty(tuple(problem.shape))
    for row in range(rows):
        for column in range(columns):
            seen = x[:, :, row : row + step * height : step, column : column + step * width : step]
            out[:, :, row, column] = torch.einsum(
                "nohw,nchw->oc", grad, seen[:, :, :height, :width]
            )
    return out


def errors(value: Tensor, expected: Tensor) -> dict[str, float]:
    """The largest and mean deviation as a fraction of the largest value."""
    difference, scale = (value.double() - expected).abs(), float(expected.abs().max())
    return {"largest": float(difference.max()) / scale, "mean": float(difference.mean()) / scale}


def verdict(kernel: Any, is_right: bool, repeats: bool) -> dict[str, Any]:
    """Fields of a row: a kernel that is marked ``DETERMINISTIC`` must also repeat to the bit."""
    row: dict[str, Any] = {"status": "ok" if is_right else "wrong", "repeats_to_the_bit": repeats}
    if is_right and not repeats and getattr(kernel, "DETERMINISTIC", False):
        row |= {"status": "wrong", "why": "two runs differ, of a kernel that is deterministic"}
    return row


def about_shape(shape: Shape, device: Device) -> dict[str, Any]:
    """Fields of a row that describe its shape."""
    return {"shape": shape._asdict(), "dtype": shape.dtype, "n": shape.filters}
