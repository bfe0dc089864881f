"""Memory of the driver, without torch: of the host, or of the GPU by the driver's library."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MULTIPROCESSORS, SHARED_BYTES = 16, 97  # CUdevice_attribute


class HostMemory:
    """Memory of the host: arrays are used directly."""

    is_gpu = False

    def upload(self, array: Array) -> int:
        self._held = [*getattr(self, "_held", []), array]
        return int(array.ctypes.data)

    def download(self, pointer: int, array: Array) -> None:
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)


class CudaMemory:
    """Memory of the first GPU, in its primary context, which the CUDA runtime shares."""

    is_gpu = True

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        self._device = ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)

    def attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    def upload(self, array: Array) -> int:
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(array.nbytes))
        self._call(
            "cuMemcpyHtoD_v2", pointer, ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
        )  # fmt: skip
        return pointer.value

    def download(self, pointer: int, array: Array) -> None:
        self._call("cuCtxSynchronize")
        self._call(
            "cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(pointer),
            ctypes.c_size_t(array.nbytes),
        )  # fmt: skip

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._driver, name)(*arguments):
            raise RuntimeError(f"{name} returned {code}")


def rounded(values: Array, dtype: str) -> tuple[Array, Array]:
    """The stored values, and the same in float64; bfloat16 truncates float32."""
    if dtype == "float32":
        return values, values.astype(np.float64)
    stored = (values.view(np.uint32) >> 16).astype(np.uint16)
    return stored, widened(stored)


def widened(stored: Array) -> Array:
    """Values that a kernel has stored, in float64."""
    if stored.dtype == np.float32:
        return stored.astype(np.float64)
    return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def error_of(found: Array, expected: Array) -> float:
    """The largest deviation as a fraction of the largest value."""
    # Written so that a NaN is a deviation.
    error = float(np.nan_to_num(np.abs(found - expected), nan=np.inf).max())
    return error / float(np.abs(expected).max())
