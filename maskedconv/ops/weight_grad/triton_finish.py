"""The last Triton kernel of weight_grad: sums the parts and recomputes NaN and infinities.

The product kernels use zeros for pixels outside a tap's range. Zero times NaN or infinity is NaN,
which would reach unrelated elements. Elements that are not finite are therefore summed again, from
the existing products only.
"""

# Python's type hints do not describe the arguments of Triton's functions.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from maskedconv.ops.weight_grad.triton_kernels import _activation

_PLAIN = [
    "parts", "images", "height", "width", "out_height", "out_width", "padding_rows",
    "padding_columns", "dilation_rows", "dilation_columns",
]  # fmt: skip
# Arguments of the kernel, from :func:`maskedconv.ops.weight_grad.triton.arguments`.
SIZES = (
    "height", "width", "channels", "out_height", "out_width", "x_image", "x_row", "x_pixel",
    "grad_image", "grad_channel", "grad_row", "grad_pixel", "padding_rows", "padding_columns",
    "dilation_rows", "dilation_columns",
)  # fmt: skip
CONSTANTS = (
    "KERNEL_ROWS", "KERNEL_COLUMNS", "STRIDE_ROWS", "STRIDE_COLUMNS", "PROLOGUE", "UPCAST",
)  # fmt: skip


@triton.jit(do_not_specialize=_PLAIN)
def finish_kernel(
    x_ptr, grad_ptr, scale_ptr, shift_ptr, parts_ptr, out_ptr,
    elements, parts, images, height, width, channels, out_height, out_width,
    x_image, x_row, x_pixel, grad_image, grad_channel, grad_row, grad_pixel,
    padding_rows, padding_columns, dilation_rows, dilation_columns,
    KERNEL_ROWS: tl.constexpr, KERNEL_COLUMNS: tl.constexpr,
    STRIDE_ROWS: tl.constexpr, STRIDE_COLUMNS: tl.constexpr,
    PROLOGUE: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``out[i]``, the sum of ``parts[part, i]`` over the parts in a fixed order.

    ``parts_ptr`` may be ``out_ptr`` if there is one part.
    """
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros([BLOCK_PARTS, BLOCK], tl.float32)
    for first in range(0, parts, BLOCK_PARTS):
        part = first + tl.arange(0, BLOCK_PARTS)
        mask = (part < parts)[:, None] & (element < elements)[None, :]
        at = part.to(tl.int64)[:, None] * elements + element[None, :]
        acc += tl.load(parts_ptr + at, mask=mask, other=0.0)
    total = tl.sum(acc, axis=0)
    lost = total - total != 0.0
    if tl.max(lost.to(tl.int32), axis=0) > 0:
        channel, tap = element % channels, element // channels % (KERNEL_ROWS * KERNEL_COLUMNS)
        filter = element // channels // (KERNEL_ROWS * KERNEL_COLUMNS)
        tap_row = tap // KERNEL_COLUMNS * dilation_rows - padding_rows
        tap_column = tap % KERNEL_COLUMNS * dilation_columns - padding_columns
        exact = tl.zeros([BLOCK], tl.float32)
        pixel = 0
        pixels = images * out_height * out_width
        # NaN propagates to the result.
        while (pixel < pixels) & (tl.max((lost & (exact == exact)).to(tl.int32), axis=0) > 0):
            image = (pixel // out_width // out_height).to(tl.int64)
            out_row, out_column = pixel // out_width % out_height, pixel % out_width
            row, column = out_row * STRIDE_ROWS + tap_row, out_column * STRIDE_COLUMNS + tap_column
            met = lost & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            x_at = image * x_image + row * x_row + column * x_pixel + channel
            grad_at = image * grad_image + out_row * grad_row + out_column * grad_pixel
            x = tl.load(x_ptr + x_at, mask=met, other=0.0)
            grad = tl.load(grad_ptr + grad_at + filter * grad_channel, mask=met, other=0.0)
            if PROLOGUE:
                scale = tl.load(scale_ptr + channel, mask=met, other=0.0)
                shift = tl.load(shift_ptr + channel, mask=met, other=0.0)
                x = _activation(x, scale, shift, UPCAST)
            exact += tl.where(met, x.to(tl.float32) * grad.to(tl.float32), 0.0)
            pixel += 1
        total = tl.where(lost, exact, total)
    tl.store(out_ptr + element, total, mask=element < elements)
