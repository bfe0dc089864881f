"""The Triton kernels of bn_statistics: the spread of parts of the pixels, and their union."""

# Python's type hints do not describe the arguments of Triton's functions.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from maskedconv.ops.bn_relu.triton_kernels import own_channels


@triton.jit
def load_sum(x_ptr, summand_ptr, x_at, summand_at, mask):
    """x, plus the summand if there is one, in the type of x."""
    x = tl.load(x_ptr + x_at, mask=mask, other=0.0)
    if summand_ptr is not None:
        summand = tl.load(summand_ptr + summand_at, mask=mask, other=0.0)
        x = (x.to(tl.float32) + summand.to(tl.float32)).to(x_ptr.dtype.element_ty)
    return x


@triton.jit
def spread_kernel(
    x_ptr, summand_ptr, total_ptr, parts_ptr, pixels, channels,
    x_pixel, summand_pixel, total_pixel, chunk,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """``parts[part, 0]``, means over ``chunk`` pixels; ``parts[part, 1]``, biased variances.

    They are those of x, or of x and a summand, whose sum is written to ``total``. Values are taken
    relative to the first pixel, so that a large mean costs no digits of the variance.
    """
    part = tl.program_id(0)
    begin, end = part * chunk, tl.minimum((part + 1) * chunk, pixels)
    channel = own_channels(1, BLOCK_CHANNELS)[None, :]
    inside = channel < channels
    pivot = load_sum(
        x_ptr, summand_ptr, begin * x_pixel + channel, begin * summand_pixel + channel, inside
    ).to(tl.float32)
    total = tl.zeros([BLOCK_PIXELS, BLOCK_CHANNELS], tl.float32)
    squares = tl.zeros([BLOCK_PIXELS, BLOCK_CHANNELS], tl.float32)
    for first in range(begin, end, BLOCK_PIXELS):
        pixel = (first + tl.arange(0, BLOCK_PIXELS))[:, None]
        mask = (pixel < end) & inside
        x = load_sum(
            x_ptr, summand_ptr, pixel * x_pixel + channel, pixel * summand_pixel + channel, mask
        )
        if total_ptr is not None:
            tl.store(total_ptr + pixel * total_pixel + channel, x, mask=mask)
        gap = tl.where(mask, x.to(tl.float32) - pivot, 0.0)
        total += gap
        squares += gap * gap
    count = (end - begin).to(tl.float32)
    mean = tl.sum(total, 0) / count
    first_value = tl.sum(pivot, 0)
    variance = tl.sum(squares, 0) / count - mean * mean
    # Rounding may leave less than none of no spread; NaN stays NaN.
    variance = tl.where(variance < 0.0, 0.0, variance)
    channel = own_channels(1, BLOCK_CHANNELS)
    at = parts_ptr + part * 2 * channels + channel
    tl.store(at, first_value + mean, mask=channel < channels)
    tl.store(at + channels, variance, mask=channel < channels)


@triton.jit
def union_kernel(
    parts_ptr, weight_ptr, bias_ptr, running_mean_ptr, running_var_ptr, statistics_ptr,
    parts, chunk, pixels, channels, part_row, row, eps, fraction,
    BLOCK_PARTS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """The statistics of all parts, ``[5, C]``; moves the running statistics.

    ``part_row`` and ``row`` are the distances of the rows of ``parts`` and statistics.
    """
    part, here = tl.arange(0, BLOCK_PARTS)[:, None], own_channels(0, BLOCK_CHANNELS)[None, :]
    mask = (part < parts) & (here < channels)
    at = parts_ptr + part * 2 * part_row + here
    means = tl.load(at, mask=mask, other=0.0)
    variances = tl.load(at + part_row, mask=mask, other=0.0)
    count = tl.where(mask, tl.minimum(chunk, pixels - part * chunk), 0).to(tl.float32)
    pivot = tl.load(parts_ptr + here, mask=here < channels, other=0.0)
    gap = tl.where(mask, means - pivot, 0.0)
    shift_of_mean = tl.sum(count * gap, 0) / pixels
    between = gap - shift_of_mean[None, :]
    inner = tl.where(mask, variances + between * between, 0.0)
    var = tl.sum(count * inner, 0) / pixels
    channel = own_channels(0, BLOCK_CHANNELS)
    inside = channel < channels
    mean = tl.load(parts_ptr + channel, mask=inside, other=0.0) + shift_of_mean
    inverse = 1.0 / tl.sqrt(var + eps)
    scale = inverse
    if weight_ptr is not None:
        scale = inverse * tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    shift = -mean * scale
    if bias_ptr is not None:
        shift += tl.load(bias_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    to = statistics_ptr + channel
    tl.store(to, mean, mask=inside)
    tl.store(to + row, var, mask=inside)
    tl.store(to + 2 * row, inverse, mask=inside)
    tl.store(to + 3 * row, scale, mask=inside)
    tl.store(to + 4 * row, shift, mask=inside)
    if running_mean_ptr is not None:
        _move(running_mean_ptr + channel, mean, fraction, inside)
        unbiased = var * (pixels / (pixels - 1.0))
        _move(running_var_ptr + channel, unbiased, fraction, inside)


@triton.jit
def _move(at, value, fraction, mask):
    """Moves a running statistic towards ``value``."""
    running = tl.load(at, mask=mask, other=0.0)
    tl.store(at, running + fraction * (value - running), mask=mask)
