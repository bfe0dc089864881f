"""masked_weight in Triton: selection digit by digit, masks and score gradients.

Magnitudes are compared as the bits of a float without its sign, which order like integers.
"""

# Python's type hints do not describe the arguments of Triton's functions.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

INFINITY_KEY = tl.constexpr(0x7F800000)
NAN_KEY = tl.constexpr(0x7FC00000)


@triton.jit
def keys_of(score):
    """NaN have one key, the largest."""
    keys = score.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    return tl.where(keys > INFINITY_KEY, NAN_KEY, keys)


@triton.jit
def row_major(element, size1, size2, size3, step0, step1, step2, step3, ORDERED: tl.constexpr):
    """The row-major index of an element of the memory order; the same if ``ORDERED``."""
    if ORDERED:
        index = element
    else:
        index3 = element % size3
        rest = element // size3
        index2 = rest % size2
        rest = rest // size2
        index1, index0 = rest % size1, rest // size1
        index = index0 * step0 + index1 * step1 + index2 * step2 + index3 * step3
    return index


@triton.jit
def pick(counts_ptr, rank, BINS: tl.constexpr):
    """The bin of the element at ``rank`` of the ascending order, and its rank within the bin."""
    counts = tl.load(counts_ptr + tl.arange(0, BINS))
    before = tl.cumsum(counts, 0) <= rank
    chosen = tl.sum(before.to(tl.int32), 0)
    return chosen, rank - tl.sum(tl.where(before, counts, 0), 0)


@triton.jit
def picked(state_ptr, counts_ptr, level, num_dropped, shift, BINS: tl.constexpr):
    """Digits chosen so far and the rank among their elements, after the level before ``level``.

    ``state[level]`` is (digits, rank). Every program computes it, the first one stores it.
    """
    digits, rank = tl.zeros((), tl.int64), tl.zeros((), tl.int64) + num_dropped
    if level > 0:
        before = state_ptr + 2 * (level - 1)
        chosen, rank = pick(counts_ptr + (level - 1) * BINS, tl.load(before + 1), BINS)
        digits = tl.load(before) | (chosen.to(tl.int64) << shift)
    if tl.program_id(0) == 0:
        tl.store(state_ptr + 2 * level, digits)
        tl.store(state_ptr + 2 * level + 1, rank)
    return digits, rank


@triton.jit
def digit_kernel(
    score_ptr, state_ptr, counts_ptr,
    elements, num_dropped, level, shift, bits, previous_shift,
    size1, size2, size3, step0, step1, step2, step3,
    KEY_LEVELS: tl.constexpr, INDEXED: tl.constexpr, ORDERED: tl.constexpr,
    BINS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Counts one digit of ``BLOCK`` scores into ``counts[level]``, of those with the digits before.

    A score's digits are those of its key in the upper 32 bits, and if ``INDEXED`` of its row-major
    index in the lower ones. ``num_dropped`` is the rank of the first kept score. If all scores of
    the threshold's key are kept, their indices are not looked at.
    """
    digits, rank = picked(state_ptr, counts_ptr, level, num_dropped, previous_shift, BINS)
    if INDEXED and level > KEY_LEVELS:
        rank = tl.load(state_ptr + 2 * KEY_LEVELS + 1)
    if (INDEXED == 0) or (rank > 0):
        element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        exists = element < elements
        keys = keys_of(tl.load(score_ptr + element, mask=exists, other=0.0))
        values = keys.to(tl.int64) << 32
        if INDEXED:
            values |= row_major(
                element, size1, size2, size3, step0, step1, step2, step3, ORDERED
            ).to(tl.int64)
        above = shift + bits
        matches = exists & ((values >> above) == (digits >> above))
        digit = tl.where(matches, (values >> shift) & ((1 << bits) - 1), 0).to(tl.int32)
        bins = tl.arange(0, BINS)
        surplus = tl.sum((matches == 0).to(tl.int32), 0)
        counts = tl.histogram(digit, BINS) - tl.where(bins == 0, surplus, 0)
        at = counts_ptr + level * BINS + bins
        tl.atomic_add(at, counts, mask=counts > 0, sem="relaxed")


@triton.jit
def threshold_kernel(
    state_ptr, counts_ptr, value_ptr, first_ptr, level,
    KEY_LEVELS: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """The threshold after the last level, in one program."""
    digits, _ = picked(state_ptr, counts_ptr, level, 0, 0, BINS)
    key = (tl.load(state_ptr + 2 * KEY_LEVELS) >> 32).to(tl.int32)
    dropped = tl.load(state_ptr + 2 * KEY_LEVELS + 1)
    tl.store(value_ptr, key.to(tl.float32, bitcast=True))
    tl.store(first_ptr, tl.where(dropped > 0, digits & 0xFFFFFFFF, 0))


@triton.jit
def kept_mask(
    score, element, value_ptr, first_ptr,
    size1, size2, size3, step0, step1, step2, step3, ORDERED: tl.constexpr,
):  # fmt: skip
    """Whether a score is kept or NaN, and whether it is NaN."""
    keys, key = keys_of(score), keys_of(tl.load(value_ptr))
    index = row_major(element, size1, size2, size3, step0, step1, step2, step3, ORDERED)
    undefined = keys == NAN_KEY
    kept = (keys > key) | ((keys == key) & (index >= tl.load(first_ptr))) | undefined
    return kept, undefined


@triton.jit
def sums_kernel(
    weight_ptr, score_ptr, value_ptr, first_ptr, sums_ptr, elements, chunk,
    size1, size2, size3, step0, step1, step2, step3,
    ORDERED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``sums[part]``: magnitudes of the kept weights and their number, of ``chunk`` elements."""
    part = tl.program_id(0)
    sums, count = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.int32)
    end = tl.minimum((part + 1) * chunk, elements)
    for first in range(part * chunk, end, BLOCK):
        element = first + tl.arange(0, BLOCK)
        exists = element < end
        weight = tl.load(weight_ptr + element, mask=exists, other=0.0)
        score = tl.load(score_ptr + element, mask=exists, other=0.0)
        kept, undefined = kept_mask(
            score, element, value_ptr, first_ptr,
            size1, size2, size3, step0, step1, step2, step3, ORDERED,
        )  # fmt: skip
        weight = tl.where(undefined, float("nan"), tl.abs(weight))
        sums += tl.where(kept & exists, weight, 0.0).to(tl.float64)
        count += (kept & exists).to(tl.int32)
    tl.store(sums_ptr + 2 * part, tl.sum(sums, 0))
    tl.store(sums_ptr + 2 * part + 1, tl.sum(count, 0).to(tl.float64))


@triton.jit
def sign(value):
    """0 of zeros and NaN."""
    return (value > 0).to(tl.float32) - (value < 0).to(tl.float32)


@triton.jit
def mask_kernel(
    weight_ptr, score_ptr, value_ptr, first_ptr, sums_ptr, out_ptr, elements, parts, scale,
    size1, size2, size3, step0, step1, step2, step3,
    ORDERED: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The masked weight; binary if there are sums (of :func:`sums_kernel`)."""
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = element < elements
    value = tl.load(weight_ptr + element, mask=exists, other=0.0)
    score = tl.load(score_ptr + element, mask=exists, other=0.0)
    kept, undefined = kept_mask(
        score, element, value_ptr, first_ptr,
        size1, size2, size3, step0, step1, step2, step3, ORDERED,
    )  # fmt: skip
    factor = scale
    if sums_ptr is not None:
        part = tl.arange(0, PARTS)
        sums = tl.load(sums_ptr + 2 * part, mask=part < parts, other=0.0)
        counts = tl.load(sums_ptr + 2 * part + 1, mask=part < parts, other=0.0)
        count = tl.maximum(tl.sum(counts, 0), 1.0)
        factor = (tl.sum(sums, 0) / count * scale).to(tl.float32)
        value = sign(value)
    value = tl.where(undefined, float("nan"), value * factor)
    tl.store(out_ptr + element, tl.where(kept, value, 0.0), mask=exists)


@triton.jit
def score_grad_kernel(
    grad_ptr, weight_ptr, score_ptr, out_ptr, elements, scale,
    BINARY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of ``BLOCK`` scores, NaN where a score is."""
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = element < elements
    factor = tl.load(weight_ptr + element, mask=exists, other=0.0)
    if BINARY:
        factor = tl.abs(factor)
    score = tl.load(score_ptr + element, mask=exists, other=0.0)
    factor *= tl.where(keys_of(score) == NAN_KEY, score, sign(score))
    grad = tl.load(grad_ptr + element, mask=exists, other=0.0).to(tl.float32)
    tl.store(out_ptr + element, factor * scale * grad, mask=exists)
