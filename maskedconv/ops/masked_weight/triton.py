"""masked_weight by the Triton kernels of ``triton_kernels.py``.

The selection takes one launch for each digit of the key (and of the index), and one more.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from maskedconv.ops import triton_runtime
from maskedconv.ops.masked_weight import reference
from maskedconv.ops.masked_weight.layout import (
    Layout,
    dense_copy,
    in_layout_of,
    result_like,
    why_no_layout,
)
from maskedconv.ops.masked_weight.native import why_not_typed
from maskedconv.ops.masked_weight.problem import (
    AnyMaskProblem,
    MaskProblem,
    ScoreGradProblem,
    Threshold,
    ThresholdProblem,
)

DEVICES: tuple[str, ...] = ("cuda",)
DETERMINISTIC = True  # counts are integers, and sums are added in a fixed order
BLOCK = {"BLOCK": 4096, "num_warps": 8}
PARTS = 256  # at most, into which a sum over all elements is split
DIGIT = 8  # bits
KEY_SHIFTS = (55, 47, 39, 32)  # of the digits of a key of 31 bits, in the upper half of 64 bits
_INT32 = 2**31 - 2**16


def cannot_run(problem: AnyMaskProblem) -> str:
    """The reason why the kernels cannot take this problem, or an empty string."""
    if reason := why_not_typed(problem):
        return reason
    first, *others = problem.tensors()
    for tensor in others:
        if tensor.device != first.device:
            return f"the tensors are on two devices, {first.device} and {tensor.device}"
    if first.numel() == 0:
        return "there is nothing to compute"
    if first.numel() >= _INT32:
        return f"{first.numel()} elements are too many for 32-bit indices"
    if not isinstance(problem, ThresholdProblem) and (reason := why_no_layout(problem.weight)):
        return reason
    return triton_runtime.cannot_launch(first.device)


def find_threshold(problem: ThresholdProblem) -> Threshold:
    """The threshold, on PyTorch's current stream."""
    from maskedconv.ops.masked_weight.triton_kernels import digit_kernel, threshold_kernel

    score, num_kept, _ = problem
    if num_kept == 0:
        return reference.find_threshold(problem)
    score, layout = dense_copy(score)
    elements, shifts = score.numel(), digits_of(score.numel())
    with triton_runtime.on_device(score):
        counts = torch.zeros(len(shifts), 2**DIGIT, dtype=torch.int32, device=score.device)
        state = torch.empty(len(shifts) + 1, 2, dtype=torch.int64, device=score.device)
        value, first = score.new_empty(()), state.new_empty(())
        for level, (shift, previous) in enumerate(zip(shifts, (0, *shifts), strict=False)):
            digit_kernel[_grid(score)](
                score, state, counts, elements, elements - num_kept, level, shift,
                bits_of(shift), previous, *arguments(layout), KEY_LEVELS=len(KEY_SHIFTS),
                INDEXED=shift < 32, BINS=2**DIGIT, **ordered(layout), **BLOCK,
            )  # fmt: skip
        threshold_kernel[(1,)](
            state, counts, value, first, len(shifts), KEY_LEVELS=len(KEY_SHIFTS), BINS=2**DIGIT
        )
    return Threshold(value, first)


def masked_weight(problem: MaskProblem) -> Tensor:
    """The masked weight, on PyTorch's current stream."""
    from maskedconv.ops.masked_weight.triton_kernels import mask_kernel, sums_kernel

    weight, score, threshold, binary, scale, dtype, _ = problem
    out, layout = result_like(weight, dtype)
    weight, score = in_layout_of(out, weight), in_layout_of(out, score)
    elements, sums = out.numel(), None
    parts, chunk = split(elements)
    with triton_runtime.on_device(out):
        if binary:
            sums = torch.empty(parts, 2, dtype=torch.float64, device=out.device)
            sums_kernel[(parts,)](
                weight, score, *threshold, sums, elements, chunk, *arguments(layout),
                **ordered(layout), **BLOCK,
            )  # fmt: skip
        mask_kernel[_grid(out)](
            weight, score, *threshold, sums, out, elements, parts, scale, *arguments(layout),
            **ordered(layout), PARTS=PARTS, **BLOCK,
        )  # fmt: skip
    return out


def score_grad(problem: ScoreGradProblem) -> Tensor:
    """The gradient of the scores, on PyTorch's current stream."""
    from maskedconv.ops.masked_weight.triton_kernels import score_grad_kernel

    _, weight, _, binary, scale, dtype, _ = problem
    out, _ = result_like(weight, dtype)
    tensors = (in_layout_of(out, tensor) for tensor in problem.tensors())
    with triton_runtime.on_device(out):
        score_grad_kernel[_grid(out)](*tensors, out, out.numel(), scale, BINARY=binary, **BLOCK)
    return out


def digits_of(elements: int) -> tuple[int, ...]:
    """The shifts of all digits: of the key, and of an index below ``elements``."""
    levels = math.ceil((elements - 1).bit_length() / DIGIT)
    return KEY_SHIFTS + tuple(DIGIT * level for level in reversed(range(levels)))


def bits_of(shift: int) -> int:
    """The bits of the digit at ``shift``."""
    return DIGIT - 1 if shift == KEY_SHIFTS[-1] else DIGIT


def arguments(layout: Layout) -> tuple[int, ...]:
    """The layout, as the kernels take it."""
    return *layout.sizes[1:], *layout.steps


def ordered(layout: Layout) -> dict[str, bool]:
    """Whether the memory order is the row-major order, as a constant of the kernels."""
    return {"ORDERED": layout.sizes[:3] == (1, 1, 1) and layout.steps[3] == 1}


def split(elements: int) -> tuple[int, int]:
    """The number of parts for a sum, and the elements of a part; none is empty."""
    blocks = math.ceil(elements / BLOCK["BLOCK"])
    chunk = math.ceil(blocks / PARTS) * BLOCK["BLOCK"]
    return math.ceil(elements / chunk), chunk


def _grid(tensor: Tensor) -> tuple[int]:
    return (math.ceil(tensor.numel() / BLOCK["BLOCK"]),)
