"""Fields of every row that describe the device and the code. Does not import torch."""

from __future__ import annotations

import ctypes
import functools
import platform
from contextlib import suppress
from importlib import metadata
from typing import Any

from bench.commit import commit


@functools.cache
def describe(rehearse: bool) -> dict[str, Any]:
    """Device, versions and commit."""
    return {
        "device": "rehearsal on the CPU" if rehearse else gpu_name(),
        "rehearsal": rehearse,
        "versions": _versions(),
        "commit": commit(),
    }


def gpu_name() -> str:
    """The name of the driver's first GPU, or an empty string."""
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0:
            driver.cuDeviceGetName(name, 256, device)
            return name.value.decode(errors="replace")
    return ""


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("torch", "triton", "numpy", "maskedconv"):
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
