"""pack_filters: learned and frozen filters to one bank, in the compute dtype and memory format."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from maskedconv.ops import native

BACKENDS = ("reference", "native", "cuda")
_BACKEND_VARIABLE = "MASKEDCONV_BACKEND"
_CUDA_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


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


def cannot_run(backend: str, learned: Tensor, frozen: Tensor, dtype: torch.dtype) -> str:
    """Empty when ``backend`` takes these tensors, else the reason why not."""
    if backend == "reference":
        return ""
    if torch.compiler.is_compiling():
        return "torch.compile fuses the reference itself"
    module = native.module()
    if module is None:
        return native.REASON
    device = "cpu" if backend == "native" else "cuda"
    if learned.device.type != device or frozen.device.type != device:
        return f"its kernel is for {device}; the filters are on {learned.device}"
    if learned.dtype != frozen.dtype:
        return f"the learned filters are {learned.dtype}, the frozen ones {frozen.dtype}"
    if backend == "cuda":
        if not hasattr(module, "pack_filters_cuda"):
            return "maskedconv._C was built without CUDA"
        known = learned.dtype == torch.float32 and dtype in _CUDA_TYPES
    else:
        known = learned.dtype == dtype or (learned.dtype, dtype) == (torch.float32, torch.bfloat16)
    return "" if known else f"no compiled conversion from {learned.dtype} to {dtype}"


def choose_backend(learned: Tensor, frozen: Tensor, dtype: torch.dtype) -> str:
    """ "native" where the compiled CPU kernel can run, else "reference".

    The environment variable MASKEDCONV_BACKEND forces one. The CUDA kernel has not run on a GPU
    yet, so nothing else chooses it.

    Raises:
        ValueError: the variable names no backend of this operator.
        RuntimeError: the backend that it names cannot run here; the message says why.
    """
    forced = os.environ.get(_BACKEND_VARIABLE, "")
    if not forced:
        return "reference" if cannot_run("native", learned, frozen, dtype) else "native"
    if forced not in BACKENDS:
        raise ValueError(f"{_BACKEND_VARIABLE} is {forced!r}; expected one of {list(BACKENDS)}")
    reason = cannot_run(forced, learned, frozen, dtype)
    if reason:
        raise RuntimeError(f"{_BACKEND_VARIABLE} is {forced!r}, which cannot run: {reason}")
    return forced


def _compiled(
    backend: str,
    learned: Tensor,
    frozen: Tensor,
    slice_dim: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    """The kernels of ``maskedconv._C``, which take pointers, and strides in elements."""
    module = native.module()
    if module is None:
        raise RuntimeError(native.REASON)
    shape = list(learned.shape)
    shape[slice_dim] += frozen.size(slice_dim)
    out = torch.empty(shape, dtype=dtype, device=learned.device, memory_format=memory_format)
    first, rest = (learned.data_ptr(), learned.stride()), (frozen.data_ptr(), frozen.stride())
    split = (shape, learned.size(slice_dim), slice_dim)
    if backend == "native":
        sizes = (dtype.itemsize, learned.dtype.itemsize)
        module.pack_filters(out.data_ptr(), out.stride(), *sizes, *first, *rest, *split)
    else:
        with torch.cuda.device(out.device):
            stream = torch.cuda.current_stream().cuda_stream
            module.pack_filters_cuda(
                out.data_ptr(), out.stride(), _CUDA_TYPES[dtype], *first, *rest, *split, stream
            )
    return out


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
    backend = choose_backend(learned, frozen, dtype)
    if backend == "reference":
        return reference(learned, frozen, slice_dim, dtype, memory_format)
    return _compiled(backend, learned, frozen, slice_dim, dtype, memory_format)
