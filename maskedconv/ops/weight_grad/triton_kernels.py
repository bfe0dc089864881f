"""weight_grad in Triton: a product with reversed roles.

``dW[o, tap, c] = sum over input pixels of x[pixel, c] * grad[pixel shifted by the tap, o]`` is one
matrix product of channels by (filters, taps) over the input's pixels. The input is read once; taps,
stride, padding and dilation act on the few channels of the gradient. The kernel in
``triton_finish.py`` follows.

Each tap loads its gradients anew, mostly from the L1 cache. Only ``tl.gather`` could shift a tile,
and compiles (Triton 3.6, sm_90) to a shuffle and a select for each row of it.

In shape comments, P is input pixels, C channels, and N columns of a block. Offsets within an image
are int32, offsets of an image int64.
"""

# Python's type hints do not describe the arguments of Triton's functions.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

_PLAIN = [
    "pixels", "height", "width", "filters", "out_height", "out_width", "padding_rows",
    "padding_columns", "dilation_rows", "dilation_columns", "tiles",
]  # fmt: skip


@triton.jit
def _activation(x, scale, shift, UPCAST: tl.constexpr):
    """``relu(x * scale + shift)`` in the dtype of the product. NaN stays NaN, as in PyTorch."""
    activation = x.to(tl.float32) * scale + shift
    activation = tl.where(activation < 0.0, 0.0, activation)
    # The interpreter truncates instead of rounding, so its product stays in float32.
    return activation if UPCAST else activation.to(x.dtype)


@triton.jit
def _input_tile(
    x_ptr, scale, shift, offset, channel, channels, live,
    PROLOGUE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """The input ``[C, P]`` after the prologue. Pixels out of range are masked in the gradient."""
    mask = (channel < channels)[:, None] & live[None, :]
    x = tl.load(x_ptr + channel[:, None] + offset[None, :], mask=mask, other=0.0)
    if PROLOGUE:
        x = _activation(x, scale[:, None], shift[:, None], UPCAST)
    elif UPCAST:
        x = x.to(tl.float32)
    return x


@triton.jit
def _output_index(position, length, STRIDE: tl.constexpr):
    """The output row (or column) of a shifted input row, and whether it exists."""
    index = position // STRIDE
    exists = (position >= 0) & (index < length)
    if STRIDE != 1:
        exists = exists & (index * STRIDE == position)
    return index, exists


@triton.jit
def _pixel(tile, pixels, height, width, BLOCK_PIXELS: tl.constexpr):
    """Image, row and column of a tile's pixels ``[P]``, and whether they exist."""
    pixel = tile * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    line = pixel // width
    return (line // height).to(tl.int64), line % height, pixel % width, pixel < pixels


@triton.jit
def _prologue(
    scale_ptr, shift_ptr, channel, channels,
    PROLOGUE: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Scale and shift ``[C]``; unused zeros without a prologue."""
    scale = tl.zeros([BLOCK_CHANNELS], tl.float32)
    shift = tl.zeros([BLOCK_CHANNELS], tl.float32)
    if PROLOGUE:
        scale = tl.load(scale_ptr + channel, mask=channel < channels, other=0.0)
        shift = tl.load(shift_ptr + channel, mask=channel < channels, other=0.0)
    return scale, shift


@triton.jit(do_not_specialize=_PLAIN)
def pairs_kernel(
    x_ptr, grad_ptr, scale_ptr, shift_ptr, out_ptr,
    pixels, height, width, channels, filters, out_height, out_width,
    x_image, x_row, x_pixel, grad_image, grad_channel, grad_row, grad_pixel,
    padding_rows, padding_columns, dilation_rows, dilation_columns, tiles,
    KERNEL_ROWS: tl.constexpr, KERNEL_COLUMNS: tl.constexpr,
    STRIDE_ROWS: tl.constexpr, STRIDE_COLUMNS: tl.constexpr,
    PROLOGUE: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr, BLOCK_PIXELS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """One product over pairs of filter and tap, for a run of ``tiles`` tiles of pixels.

    Writes float32 ``out[part, filter, tap, channel]``; the grid is (parts, channel blocks, pair
    blocks).
    """
    TAPS: tl.constexpr = KERNEL_ROWS * KERNEL_COLUMNS
    part = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    pair = tl.program_id(2) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    # Neighbours are filters of one tap, which are contiguous in a channels_last gradient.
    filter, tap = pair % filters, pair // filters
    tap_row = padding_rows - tap // KERNEL_COLUMNS * dilation_rows
    tap_column = padding_columns - tap % KERNEL_COLUMNS * dilation_columns
    scale, shift = _prologue(scale_ptr, shift_ptr, channel, channels, PROLOGUE, BLOCK_CHANNELS)
    acc = tl.zeros([BLOCK_CHANNELS, BLOCK_COLUMNS], tl.float32)
    for tile in range(part * tiles, part * tiles + tiles):
        image, row, column, live = _pixel(tile, pixels, height, width, BLOCK_PIXELS)
        offset = image * x_image + row * x_row + column * x_pixel
        x = _input_tile(x_ptr, scale, shift, offset, channel, channels, live, PROLOGUE, UPCAST)
        out_row, has_row = _output_index(row[:, None] + tap_row[None, :], out_height, STRIDE_ROWS)
        out_column, has_column = _output_index(
            column[:, None] + tap_column[None, :], out_width, STRIDE_COLUMNS
        )
        within = out_row * grad_row + out_column * grad_pixel + (filter * grad_channel)[None, :]
        mask = has_row & has_column & live[:, None] & (pair < filters * TAPS)[None, :]
        grad = tl.load(grad_ptr + (image * grad_image)[:, None] + within, mask=mask, other=0.0)
        if UPCAST:
            grad = grad.to(tl.float32)
        acc = tl.dot(x, grad, acc, input_precision="tf32")
    out_ptr += part.to(tl.int64) * filters * TAPS * channels
    to = (filter * TAPS + tap) * channels
    mask = (channel < channels)[:, None] & (pair < filters * TAPS)[None, :]
    tl.store(out_ptr + to[None, :] + channel[:, None], acc, mask=mask)


@triton.jit(do_not_specialize=_PLAIN)
def taps_kernel(
    x_ptr, grad_ptr, scale_ptr, shift_ptr, out_ptr,
    pixels, height, width, channels, filters, out_height, out_width,
    x_image, x_row, x_pixel, grad_image, grad_channel, grad_row, grad_pixel,
    padding_rows, padding_columns, dilation_rows, dilation_columns, tiles, readable,
    KERNEL_ROWS: tl.constexpr, KERNEL_COLUMNS: tl.constexpr,
    STRIDE_ROWS: tl.constexpr, STRIDE_COLUMNS: tl.constexpr,
    PROLOGUE: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr, BLOCK_PIXELS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """One product per tap, each with its accumulator, for a run of ``tiles`` tiles of pixels.

    ``readable`` (>= filters) channels of the gradient may be read. Reading a complete block keeps
    the loads aligned; surplus columns are not written. Writes float32
    ``out[part, filter, tap, channel]``; the grid is (parts, channel blocks, filter blocks).
    """
    TAPS: tl.constexpr = KERNEL_ROWS * KERNEL_COLUMNS
    part = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    filter = tl.program_id(2) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    scale, shift = _prologue(scale_ptr, shift_ptr, channel, channels, PROLOGUE, BLOCK_CHANNELS)
    accs = ()
    for _ in tl.static_range(TAPS):
        accs += (tl.zeros([BLOCK_CHANNELS, BLOCK_COLUMNS], tl.float32),)
    for tile in range(part * tiles, part * tiles + tiles):
        image, row, column, live = _pixel(tile, pixels, height, width, BLOCK_PIXELS)
        offset = image * x_image + row * x_row + column * x_pixel
        x = _input_tile(x_ptr, scale, shift, offset, channel, channels, live, PROLOGUE, UPCAST)
        sums = ()
        for tap in tl.static_range(TAPS):
            out_row, has_row = _output_index(
                row + padding_rows - tap // KERNEL_COLUMNS * dilation_rows, out_height, STRIDE_ROWS
            )
            out_column, has_column = _output_index(
                column + padding_columns - tap % KERNEL_COLUMNS * dilation_columns,
                out_width, STRIDE_COLUMNS,
            )  # fmt: skip
            at = image * grad_image + out_row * grad_row + out_column * grad_pixel
            mask = (has_row & has_column & live)[:, None] & (filter < readable)[None, :]
            from_ptr = grad_ptr + at[:, None] + (filter * grad_channel)[None, :]
            grad = tl.load(from_ptr, mask=mask, other=0.0)
            if UPCAST:
                grad = grad.to(tl.float32)
            sums += (tl.dot(x, grad, accs[tap], input_precision="tf32"),)
        accs = sums
    out_ptr += part.to(tl.int64) * filters * TAPS * channels
    mask = (channel < channels)[:, None] & (filter < filters)[None, :]
    for tap in tl.static_range(TAPS):
        to = (filter * TAPS + tap) * channels
        tl.store(out_ptr + to[None, :] + channel[:, None], accs[tap], mask=mask)
