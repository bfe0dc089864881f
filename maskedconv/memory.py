"""How this process's C library gives freed memory back."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed for what comes next; elsewhere it does nothing.

    By default it returns every large tensor to the system, whose pages then are fetched and cleared
    anew at each step of a training on the CPU. The process keeps the size of its peak instead.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
