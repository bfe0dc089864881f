"""The gate between tensors and kernels: a kernel reads bare memory, and not every tensor is that.

PyTorch negates and conjugates lazily, keeps gradients of zeros without memory, and has subclasses
and transforms whose tensors only stand for others. Its own operators know all of these; a pointer
does not. The dispatch asks :func:`resolved` and :func:`why_not_plain` before it takes a kernel,
and every kernel takes its pointers from :func:`address` (Triton takes them itself).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

# True of FakeTensor, DTensor and other subclasses with an own dispatch, of the wrappers of
# torch.func, of functional tensors, and of the meta device and sparse layouts.
_stands_for_another = torch._C._dispatch_isTensorSubclassLike
_active_modes = torch._C._len_torch_dispatch_stack


_PLAIN_TYPES = (Tensor, Parameter)


def is_plain(tensor: Tensor) -> bool:
    """Whether the memory of ``tensor`` holds its values, as its strides say.

    Complex numbers are left out, as no kernel takes them. Asked twice in every backward pass, so in
    the order in which the usual tensor is known soonest.
    """
    if _active_modes() or tensor.is_neg():
        return False
    if type(tensor) not in _PLAIN_TYPES and _stands_for_another(tensor):
        return False
    try:
        # Zero for gradients of zeros, and an error for the wrappers of torch.func and for layouts
        # without strides.
        return bool(tensor.data_ptr() or not tensor.numel())
    except RuntimeError:
        return False


def resolved(tensor: Tensor) -> Tensor:
    """The tensor itself, or in memory of its own what PyTorch would compute only when it is read.

    Gradients pass through neither. A tensor that stands for another stays as it is.
    """
    if (is_plain(tensor) and not tensor.is_complex()) or _stands_for_another(tensor):
        return tensor
    if tensor._is_zerotensor():
        return torch.zeros_like(tensor)
    if tensor.is_conj():
        tensor = tensor.resolve_conj()
    return tensor.resolve_neg() if tensor.is_neg() else tensor


def why_not_plain(tensors: Iterable[Tensor]) -> str:
    """Empty where a kernel can read all of ``tensors``, else the reason why not."""
    for tensor in tensors:
        if not is_plain(tensor):
            if _active_modes():
                return "a kernel does not show its work to the TorchDispatchMode that is active"
            return (
                f"a kernel reads bare memory, which a {type(tensor).__name__} "
                f"({tensor.layout}, {tensor.device}) does not have here"
            )
    return ""


def address(tensor: Tensor) -> int:
    """The address of the memory of ``tensor``, for a kernel.

    Raises:
        RuntimeError: its values are not in its memory.
    """
    pointer = 0 if tensor.is_neg() else tensor.data_ptr()
    if not pointer and tensor.numel():
        raise RuntimeError(
            f"a kernel was to read a tensor without memory of its own: {type(tensor).__name__}, "
            f"{list(tensor.shape)}, {tensor.dtype}, {tensor.device}; this is a fault of maskedconv"
        )
    return pointer
