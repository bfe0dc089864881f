"""pack_filters in Triton: one launch, in the weight's memory order."""

# Python's type hints do not describe the arguments of Triton's functions.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pack_filters_kernel(
    learned_ptr, frozen_ptr, bank_ptr,
    elements, size1, size2, size3, split,
    learned0, learned1, learned2, learned3, frozen0, frozen1, frozen2, frozen3,
    SLICE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes ``BLOCK`` elements of a dense weight ``[size0, size1, size2, size3]``.

    Dimensions are numbered from slowest to fastest in the weight's memory, also in the strides of
    the two slices. Indices below ``split`` in dimension ``SLICE`` are learned.
    """
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    index3 = element % size3
    rest = element // size3
    index2 = rest % size2
    rest = rest // size2
    index1, index0 = rest % size1, rest // size1
    if SLICE == 0:
        along = index0
    elif SLICE == 1:
        along = index1
    elif SLICE == 2:
        along = index2
    else:
        along = index3
    learned_at = (
        index0.to(tl.int64) * learned0 + index1.to(tl.int64) * learned1
        + index2.to(tl.int64) * learned2 + index3.to(tl.int64) * learned3
    )  # fmt: skip
    frozen_at = (
        index0.to(tl.int64) * frozen0 + index1.to(tl.int64) * frozen1
        + index2.to(tl.int64) * frozen2 + index3.to(tl.int64) * frozen3
    )  # fmt: skip
    if SLICE == 0:
        frozen_at -= split * frozen0
    elif SLICE == 1:
        frozen_at -= split * frozen1
    elif SLICE == 2:
        frozen_at -= split * frozen2
    else:
        frozen_at -= split * frozen3
    exists, is_learned = element < elements, along < split
    learned = tl.load(learned_ptr + learned_at, mask=exists & is_learned, other=0.0)
    frozen = tl.load(frozen_ptr + frozen_at, mask=exists & (along >= split), other=0.0)
    target = bank_ptr.dtype.element_ty
    tl.store(
        bank_ptr + element, tl.where(is_learned, learned.to(target), frozen.to(target)), exists
    )
