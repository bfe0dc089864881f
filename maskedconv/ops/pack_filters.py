"""pack_filters: learned and frozen filters to one bank, in the compute dtype and memory format."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from maskedconv.ops import native

BACKENDS = ("reference", "native")
_BACKEND_VARIABLE = "MASKEDCONV_BACKEND"


def reference(
    learned: Tensor,
    frozen: Tensor,
    slice_dim: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    """The same result from PyTorch's own operators; traceable by torch.compile."""
    whole = torch.cat((learned.to(dtype), frozen.to(dtype)), dim=slice_dim)
    return whole.contiguous(memory_format=memory_format)


def native_can_run(learned: Tensor, frozen: Tensor, dtype: torch.dtype) -> str:
    """Empty when the compiled CPU kernel takes these tensors, else the reason why not."""
    if native.module() is None:
        return native.REASON
    if torch.compiler.is_compiling():
        return "torch.compile fuses the reference itself"
    if learned.device.type != "cpu" or frozen.device.type != "cpu":
        return f"the compiled kernel is for the CPU; the filters are on {learned.device}"
    if learned.dtype != frozen.dtype:
        return f"the learned filters are {learned.dtype}, the frozen ones {frozen.dtype}"
    if learned.dtype != dtype and (learned.dtype, dtype) != (torch.float32, torch.bfloat16):
        return f"no compiled conversion from {learned.dtype} to {dtype}"
    return ""


def _native(
    learned: Tensor,
    frozen: Tensor,
    slice_dim: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    shape = list(learned.shape)
    shape[slice_dim] += frozen.size(slice_dim)
    out = torch.empty(shape, dtype=dtype, device=learned.device, memory_format=memory_format)
    module = native.module()
    if module is None:
        raise RuntimeError(native.REASON)
    module.pack_filters(
        out.data_ptr(), out.stride(), dtype.itemsize,
        learned.data_ptr(), learned.stride(), learned.dtype.itemsize,
        frozen.data_ptr(), frozen.stride(),
        shape, learned.size(slice_dim), slice_dim,
    )  # fmt: skip
    return out


def choose_backend(learned: Tensor, frozen: Tensor, dtype: torch.dtype) -> str:
    """ "native" where the compiled kernel can run, else "reference".

    The environment variable MASKEDCONV_BACKEND forces one.

    Raises:
        ValueError: the variable names no backend of this operator.
        RuntimeError: the backend that it names cannot run here; the message says why.
    """
    forced = os.environ.get(_BACKEND_VARIABLE, "")
    if forced and forced not in BACKENDS:
        raise ValueError(f"{_BACKEND_VARIABLE} is {forced!r}; expected one of {list(BACKENDS)}")
    if forced == "reference":
        return "reference"
    reason = native_can_run(learned, frozen, dtype)
    if forced and reason:
        raise RuntimeError(f"{_BACKEND_VARIABLE} is {forced!r}, which cannot run: {reason}")
    return "reference" if reason else "native"


def pack_filters(
    learned: Tensor,
    frozen: Tensor | None,
    slice_dim: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    """One bank ``[O, I / groups, kH, kW]`` of the learned slice followed by the frozen one.

    Not differentiable. Where there is nothing to assemble, the result may be ``learned`` or
    ``frozen`` itself.

    Args:
        learned, frozen: the two slices, alike but for dimension ``slice_dim``; frozen may be None.
        dtype, memory_format: of the result.
    """
    if frozen is None or learned.size(slice_dim) == 0:
        whole = learned if frozen is None else frozen
        return whole.to(dtype).contiguous(memory_format=memory_format)
    run = _native if choose_backend(learned, frozen, dtype) == "native" else reference
    return run(learned, frozen, slice_dim, dtype, memory_format)
