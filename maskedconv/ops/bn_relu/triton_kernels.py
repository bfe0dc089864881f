"""The Triton kernels of bn_relu: the activation, and backward in three launches."""

# Python's type hints do not describe the arguments of Triton's functions.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

# Rows of a BatchNorm's statistics.
MEAN, INVERSE_DEVIATION, SCALE, SHIFT = (tl.constexpr(row) for row in (0, 2, 3, 4))


@triton.jit
def own_channels(AXIS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """The channels of this program, ``[C]``.

    AXIS is 1 if the grid is one of pixels too. These have the first axis, which alone is long.
    """
    return tl.program_id(AXIS) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)


@triton.jit
def passing(condition, value):
    """The values that pass the ReLU whose argument is ``condition``; NaN opens it."""
    return tl.where(condition <= 0.0, 0.0, value)


@triton.jit
def activation_kernel(
    x_ptr, statistics_ptr, out_ptr, pixels, channels, x_pixel, out_pixel, row,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """``out = relu(x * scale + shift)``; ``row`` is the distance of the rows of statistics."""
    pixel = (tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS))[:, None]
    channel = own_channels(1, BLOCK_CHANNELS)[None, :]
    inside = channel < channels
    scale = tl.load(statistics_ptr + SCALE * row + channel, mask=inside, other=0.0)
    shift = tl.load(statistics_ptr + SHIFT * row + channel, mask=inside, other=0.0)
    mask = (pixel < pixels) & inside
    x = tl.load(x_ptr + pixel * x_pixel + channel, mask=mask, other=0.0).to(tl.float32)
    value = x * scale + shift
    tl.store(out_ptr + pixel * out_pixel + channel, passing(value, value), mask=mask)


@triton.jit
def sums_kernel(
    x_ptr, grad_ptr, statistics_ptr, parts_ptr, pixels, channels, x_pixel, grad_pixel, row, chunk,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """``parts[part, 0]``, sums of the gradients that pass the ReLU; ``parts[part, 1]``, of their
    products with ``x - mean``; over ``chunk`` pixels.
    """
    part = tl.program_id(0)
    channel = own_channels(1, BLOCK_CHANNELS)[None, :]
    inside = channel < channels
    mean = tl.load(statistics_ptr + MEAN * row + channel, mask=inside, other=0.0)
    scale = tl.load(statistics_ptr + SCALE * row + channel, mask=inside, other=0.0)
    shift = tl.load(statistics_ptr + SHIFT * row + channel, mask=inside, other=0.0)
    sums = tl.zeros([BLOCK_PIXELS, BLOCK_CHANNELS], tl.float32)
    products = tl.zeros([BLOCK_PIXELS, BLOCK_CHANNELS], tl.float32)
    end = tl.minimum((part + 1) * chunk, pixels)
    for first in range(part * chunk, end, BLOCK_PIXELS):
        pixel = (first + tl.arange(0, BLOCK_PIXELS))[:, None]
        mask = (pixel < end) & inside
        x = tl.load(x_ptr + pixel * x_pixel + channel, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + pixel * grad_pixel + channel, mask=mask, other=0.0)
        grad = passing(x * scale + shift, grad.to(tl.float32))
        sums += grad
        products += tl.where(mask, grad * (x - mean), 0.0)
    channel = own_channels(1, BLOCK_CHANNELS)
    at = parts_ptr + part * 2 * channels + channel
    tl.store(at, tl.sum(sums, 0), mask=channel < channels)
    tl.store(at + channels, tl.sum(products, 0), mask=channel < channels)


@triton.jit
def coefficients_kernel(
    parts_ptr, statistics_ptr, coefficients_ptr, grad_weight_ptr, grad_bias_ptr,
    parts, pixels, channels, row,
    BLOCK_PARTS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradients of γ and β, and the coefficients of :func:`input_grad_kernel`, ``[2, C]``."""
    part, channels_here = (
        tl.arange(0, BLOCK_PARTS)[:, None],
        own_channels(0, BLOCK_CHANNELS)[None, :],
    )
    mask = (part < parts) & (channels_here < channels)
    at = parts_ptr + part * 2 * channels + channels_here
    total = tl.sum(tl.load(at, mask=mask, other=0.0), 0)
    product = tl.sum(tl.load(at + channels, mask=mask, other=0.0), 0)
    channel = own_channels(0, BLOCK_CHANNELS)
    inside = channel < channels
    inverse = tl.load(statistics_ptr + INVERSE_DEVIATION * row + channel, mask=inside, other=0.0)
    scale = tl.load(statistics_ptr + SCALE * row + channel, mask=inside, other=0.0)
    if grad_weight_ptr is not None:
        tl.store(grad_weight_ptr + channel, product * inverse, mask=inside)
    if grad_bias_ptr is not None:
        tl.store(grad_bias_ptr + channel, total, mask=inside)
    share = scale / pixels
    tl.store(coefficients_ptr + channel, -share * total, mask=inside)
    slope = -share * inverse * inverse * product
    tl.store(coefficients_ptr + channels + channel, slope, mask=inside)


@triton.jit
def input_grad_kernel(
    x_ptr, grad_ptr, statistics_ptr, coefficients_ptr, added_ptr, out_ptr,
    pixels, channels, x_pixel, grad_pixel, added_pixel, out_pixel, row,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradient of x, plus ``added`` if that is given; ``out`` may be the same memory.

    Without coefficients the moments are constants: 0 times an infinite x would be NaN.
    """
    pixel = (tl.program_id(0) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS))[:, None]
    channel = own_channels(1, BLOCK_CHANNELS)[None, :]
    inside = channel < channels
    scale = tl.load(statistics_ptr + SCALE * row + channel, mask=inside, other=0.0)
    shift = tl.load(statistics_ptr + SHIFT * row + channel, mask=inside, other=0.0)
    mask = (pixel < pixels) & inside
    x = tl.load(x_ptr + pixel * x_pixel + channel, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + pixel * grad_pixel + channel, mask=mask, other=0.0).to(tl.float32)
    result = passing(x * scale + shift, grad) * scale
    if coefficients_ptr is not None:
        mean = tl.load(statistics_ptr + MEAN * row + channel, mask=inside, other=0.0)
        constant = tl.load(coefficients_ptr + channel, mask=inside, other=0.0)
        slope = tl.load(coefficients_ptr + channels + channel, mask=inside, other=0.0)
        result += slope * (x - mean) + constant
    if added_ptr is not None:
        added = tl.load(added_ptr + pixel * added_pixel + channel, mask=mask, other=0.0)
        result += added.to(tl.float32)
    tl.store(out_ptr + pixel * out_pixel + channel, result, mask=mask)
