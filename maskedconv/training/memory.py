"""Memory of this process on the CPU: its peak, and whether freed memory is kept."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Lets glibc keep freed memory for later allocations; does nothing with other libraries.

    By default it returns every large tensor to the system, whose pages then are fetched and cleared
    anew at each step of a training on the CPU. The process keeps the size of its peak instead.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def peak_resident() -> int:
    """Bytes of the process's largest resident size so far."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
