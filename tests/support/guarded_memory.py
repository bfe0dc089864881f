"""Tensors in memory that ends, or begins, at a page which may not be accessed."""

from __future__ import annotations

import ctypes
import math
import mmap

import torch

_NO_ACCESS = 0  # PROT_NONE of mmap(2)
_held = []


def guarded(tensor, at_end, alignment=1):
    """A copy of ``tensor`` with its strides; its memory ends or begins at a forbidden page.

    It ends up to ``alignment`` - 1 bytes before, so that it begins at a multiple of that.
    """
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    size = span * tensor.element_size()
    pages = math.ceil(size / mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
    _held.append(memory)
    start = mmap.PAGESIZE + (pages * mmap.PAGESIZE - size if at_end else 0)
    start -= start % alignment
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=span, offset=start)
    first = flat.data_ptr() - start
    for page in (0, pages + 1):
        address = ctypes.c_void_p(first + page * mmap.PAGESIZE)
        assert ctypes.CDLL(None).mprotect(address, mmap.PAGESIZE, _NO_ACCESS) == 0
    return flat.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def touch_beyond():
    """Reads the byte before a tensor."""
    return ctypes.c_char.from_address(guarded(torch.zeros(3), at_end=False).data_ptr() - 1).value
