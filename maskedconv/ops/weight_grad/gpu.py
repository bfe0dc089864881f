"""The arguments of weight_grad's kernels for GPUs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv.ops import devices, native
from maskedconv.ops.channels import of_channels
from maskedconv.ops.plain import address
from maskedconv.ops.weight_grad.problem import WeightGradProblem


class Limits(NamedTuple):
    """The limits of a GPU that determine a kernel's tiles."""

    multiprocessors: int
    shared_bytes: int  # limit of one block


def limits_of(device: torch.device) -> Limits:
    """The limits of ``device``."""
    properties = devices.properties_of(device)
    return Limits(properties.multi_processor_count, properties.shared_memory_per_block_optin)


def why_not_on_cuda(problem: WeightGradProblem) -> str:
    """The reason why the tensors are not on one GPU, or an empty string."""
    input, grad_output = problem.input, problem.grad_output
    if input.device.type == "cuda" and grad_output.device == input.device:
        return ""
    return (
        f"its kernel is for cuda; the input is on {input.device}, "
        f"the gradient on {grad_output.device}"
    )


def operands(problem: WeightGradProblem) -> tuple[Any, ...]:
    """Type, addresses, shapes and strides, in the order of the module's functions."""
    input, grad_output, geometry = problem.input, problem.grad_output, problem.geometry
    return (
        native.TYPES[input.dtype],
        address(input), input.shape, input.stride(),
        address(grad_output), grad_output.shape, grad_output.stride(),
        problem.shape, geometry.stride, geometry.padding, geometry.dilation,
    )  # fmt: skip


def new_result(problem: WeightGradProblem) -> Tensor:
    """Memory for the gradient ``[n, kH, kW, C]``."""
    filters, channels, *kernel = problem.shape
    return torch.empty(
        (filters, *kernel, channels), dtype=torch.float32, device=problem.input.device
    )


def prologue(problem: WeightGradProblem) -> list[Tensor | None]:
    """Scale and shift as the kernels read them; None for none.

    Raises:
        ValueError: they are of another number of channels.
    """
    channels = problem.shape[1]
    return [of_channels(part, channels) for part in (problem.scale, problem.shift)]
