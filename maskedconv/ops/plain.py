"""Checks that a tensor's memory contains its values, which kernels read by pointer.

PyTorch negates and conjugates lazily, stores gradients of zeros without memory, and has subclasses
and transforms with wrapper tensors. Its operators handle all of these, but a pointer does not. The
dispatch calls :func:`resolved` and :func:`why_not_plain` before it chooses a kernel, and every
kernel gets its pointers from :func:`address` or :func:`addresses` (except Triton, which reads them
itself).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

# True for FakeTensor, DTensor and other subclasses with their own dispatch, for wrappers of
# torch.func, functional tensors, the meta device and sparse layouts.
_stands_for_another = torch._C._dispatch_isTensorSubclassLike
active_modes = torch._C._len_torch_dispatch_stack


_PLAIN_TYPES = (Tensor, Parameter)


def is_plain(tensor: Tensor) -> bool:
    """Whether the memory of ``tensor`` contains its values, laid out by its strides.

    False for complex numbers, which no kernel takes. Runs twice in every backward pass, so the
    conditions are ordered to be fast for ordinary tensors.
    """
    # A slice of zeros without memory has an address, its offset.
    if active_modes() or tensor.is_neg() or tensor._is_zerotensor():
        return False
    if type(tensor) not in _PLAIN_TYPES and _stands_for_another(tensor):
        return False
    try:
        # Raises for wrappers of torch.func and layouts without strides.
        return bool(tensor.data_ptr() or not tensor.numel())
    except RuntimeError:
        return False


def version_and_address(tensor: Tensor) -> tuple[int, int]:
    """Version and address; they change with the values, except through ``.data``. 0 if missing.

    Another tensor may get the address when this one is gone. Works under an active
    TorchDispatchMode, too.
    """
    version = 0 if tensor.is_inference() else tensor._version
    try:
        return version, tensor.data_ptr()
    except RuntimeError:  # as in is_plain
        return version, 0


def resolved(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy with its lazy operations applied.

    The result is not differentiable. Wrapper tensors are returned unchanged.
    """
    if (is_plain(tensor) and not tensor.is_complex()) or _stands_for_another(tensor):
        return tensor
    if tensor._is_zerotensor():
        return torch.zeros_like(tensor)
    if tensor.is_conj():
        tensor = tensor.resolve_conj()
    return tensor.resolve_neg() if tensor.is_neg() else tensor


def why_not_plain(tensors: Iterable[Tensor]) -> str:
    """The reason why a kernel cannot read all of ``tensors``, or an empty string."""
    for tensor in tensors:
        if not is_plain(tensor):
            if active_modes():
                return "the active TorchDispatchMode would not see a kernel"
            return (
                f"a kernel reads bare memory, which a {type(tensor).__name__} "
                f"({tensor.layout}, {tensor.device}) does not have here"
            )
    return ""


def address(tensor: Tensor) -> int:
    """The address of the memory of ``tensor``, for a kernel.

    Raises:
        RuntimeError: the memory does not contain its values.
    """
    lazy = tensor.is_neg() or tensor._is_zerotensor()
    pointer = 0 if lazy else tensor.data_ptr()
    if not pointer and tensor.numel():
        raise RuntimeError(
            f"a kernel received a tensor without its own memory: {type(tensor).__name__}, "
            f"{list(tensor.shape)}, {tensor.dtype}, {tensor.device}; this is a bug in maskedconv"
        )
    return pointer


def addresses(*tensors: Tensor | None) -> list[int]:
    """Each one's :func:`address`; 0 for None.

    Raises:
        RuntimeError: as :func:`address`.
    """
    return [0 if tensor is None else address(tensor) for tensor in tensors]
