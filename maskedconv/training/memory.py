"""Whether glibc keeps freed memory."""

from __future__ import annotations

import ctypes

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for later allocations; does nothing with other C libraries.

    By default glibc returns every large tensor to the system, and each training step on the CPU
    pays for new, cleared pages. With this setting the process keeps its peak size instead.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
