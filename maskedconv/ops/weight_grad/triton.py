"""weight_grad by the Triton kernels of ``triton_kernels.py``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from maskedconv.ops import devices, triton_runtime
from maskedconv.ops.weight_grad import gpu, triton_config
from maskedconv.ops.weight_grad.problem import WeightGradProblem, outside_the_kernels

DEVICES: tuple[str, ...] = ("cuda",)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
FINISH_BLOCK = {"BLOCK_PARTS": 32, "BLOCK": 64}
_INT32 = 2**31


def cannot_run(problem: WeightGradProblem) -> str:
    """The reason why the kernel cannot take this problem, or an empty string."""
    input, grad_output = problem.input, problem.grad_output
    if reason := outside_the_kernels(problem):
        return reason
    if input.dtype not in DTYPES or grad_output.dtype != input.dtype:
        return (
            "its kernel is for bfloat16, float16 and float32; the input is "
            f"{input.dtype}, the gradient {grad_output.dtype}"
        )
    if not _in_reach(input) or not _in_reach(grad_output):
        return "a tensor has too many pixels, or an image is too large, for 32-bit indices"
    if max(_blocks(problem)) > triton_runtime.MOST_BLOCKS:
        return "the filters and taps, or the channels, are more than a launch has blocks for"
    reason = triton_runtime.cannot_launch(input.device)
    if reason or input.dtype != torch.float32 or input.device.type == "cpu":
        return reason
    if torch.backends.cudnn.conv.fp32_precision != "tf32":  # type: ignore[attr-defined]
        return "its kernel computes float32 in TF32, which torch.backends.cudnn.conv forbids"
    return ""


def _blocks(problem: WeightGradProblem) -> tuple[int, int]:
    """Blocks of channels, and of columns: filters, or pairs of filter and tap."""
    filters, channels, *kernel = problem.shape
    config = triton_config.choose(channels, filters, math.prod(kernel))
    columns = triton_config.column_blocks(config, filters, math.prod(kernel))
    return math.ceil(channels / config.block_channels), columns


def _in_reach(tensor: Tensor) -> bool:
    """Whether the number of pixels and the offsets within an image fit into int32."""
    span = sum(
        (size - 1) * stride
        for size, stride in zip(tensor.shape[1:], tensor.stride()[1:], strict=True)
    )
    pixels = tensor.size(0) * tensor.size(2) * tensor.size(3)
    return span < _INT32 and pixels < _INT32 - 2**16


def _processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; for the interpreter, a number that splits small problems."""
    return 4 if device.type == "cpu" else devices.multiprocessors(device)


def run(problem: WeightGradProblem) -> Tensor:
    """The gradient in float32, channels_last."""
    problem = _without_skipped_pixels(problem)
    with triton_runtime.on_device(problem.input):
        return _launch(problem)


def _without_skipped_pixels(problem: WeightGradProblem) -> WeightGradProblem:
    """A view of the pixels that a single tap without padding reads: every stride-th one."""
    geometry = problem.geometry
    if problem.shape[2] * problem.shape[3] != 1 or geometry.padding != (0, 0):
        return problem
    rows, columns = geometry.stride
    return problem._replace(
        input=problem.input[:, :, ::rows, ::columns], geometry=geometry._replace(stride=(1, 1))
    )


def _launch(problem: WeightGradProblem) -> Tensor:
    """Launches the products of every part of the pixels and their sum, on the current stream."""
    from maskedconv.ops.weight_grad import triton_finish as finish
    from maskedconv.ops.weight_grad import triton_kernels as kernels

    filters, channels, *kernel = problem.shape
    taps, device = math.prod(kernel), problem.input.device
    pixels = problem.input.numel() // channels
    prologue = gpu.prologue(problem)
    config = triton_config.choose(channels, filters, taps)
    channel_blocks, columns = _blocks(problem)
    split = triton_config.split_pixels(config, channels, columns, pixels, _processors(device))
    out = torch.empty((filters, *kernel, channels), dtype=torch.float32, device=device)
    parts = out if split.parts == 1 else out.new_empty((split.parts, *out.shape))
    grid = (split.parts, channel_blocks, columns)
    sizes, constants = arguments(problem, config)
    launched = kernels.taps_kernel if config.per_tap else kernels.pairs_kernel
    launched[grid](
        problem.input, problem.grad_output, *prologue, parts,
        **sizes, tiles=split.tiles, **constants, num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    finish.finish_kernel[(math.ceil(out.numel() / FINISH_BLOCK["BLOCK"]),)](
        problem.input, problem.grad_output, *prologue, parts, out,
        out.numel(), split.parts, problem.input.size(0),
        **{name: sizes[name] for name in finish.SIZES},
        **{name: constants[name] for name in finish.CONSTANTS}, **FINISH_BLOCK,
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)


def arguments(
    problem: WeightGradProblem, config: triton_config.Configuration
) -> tuple[dict[str, int], dict[str, Any]]:
    """The kernel's sizes and strides (in elements), and its compile-time constants, by name."""
    input, grad, geometry = problem.input, problem.grad_output, problem.geometry
    sizes = {
        "pixels": input.size(0) * input.size(2) * input.size(3),
        "height": input.size(2), "width": input.size(3),
        "channels": problem.shape[1], "filters": problem.shape[0],
        "out_height": grad.size(2), "out_width": grad.size(3),
        "x_image": input.stride(0), "x_row": input.stride(2), "x_pixel": input.stride(3),
        "grad_image": grad.stride(0), "grad_channel": grad.stride(1),
        "grad_row": grad.stride(2), "grad_pixel": grad.stride(3),
        "padding_rows": geometry.padding[0], "padding_columns": geometry.padding[1],
        "dilation_rows": geometry.dilation[0], "dilation_columns": geometry.dilation[1],
    }  # fmt: skip
    if config.per_tap:
        sizes["readable"] = grad.size(1)
    constants = {
        "KERNEL_ROWS": problem.shape[2], "KERNEL_COLUMNS": problem.shape[3],
        "STRIDE_ROWS": geometry.stride[0], "STRIDE_COLUMNS": geometry.stride[1],
        "PROLOGUE": problem.scale is not None, "UPCAST": triton_runtime.interpreted(),
        "BLOCK_CHANNELS": config.block_channels, "BLOCK_PIXELS": config.block_pixels,
        "BLOCK_COLUMNS": config.block_columns,
    }  # fmt: skip
    return sizes, constants
