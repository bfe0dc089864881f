"""Tensors that are assembled from parts, and hand in-place changes back to those parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

# Assigning these on an assembled tensor would change nothing that the module keeps.
_NOT_KEPT = {
    Tensor.requires_grad_,
    *(vars(torch._C.TensorBase)[name].__set__ for name in ("requires_grad", "data", "grad")),
}


class _WrittenThrough(Tensor):
    """After an operation that changed it in place, its values go to ``_write``."""

    _whole: Tensor
    _write: Callable[[Tensor], None]

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _NOT_KEPT:
            raise RuntimeError(
                "weight and bias of a MaskedConv2d are assembled from its parts: set this on "
                "`learned`, `frozen`, `bias_learned` or `bias_frozen`, or load a state dict"
            )
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            watched = [t for t in tree_leaves((args, kwargs)) if isinstance(t, cls)]
            versions = [t._version for t in watched]
            result = func(*args, **kwargs)
            for tensor, version in zip(watched, versions, strict=True):
                if tensor._version != version:
                    tensor._write(tensor._whole)
            return _follow_views(result, watched)


def _follow_views(result: Any, watched: list[_WrittenThrough]) -> Any:
    """A view (``.data``, ``.detach()``, ``[0]``) of an assembled tensor is written through too."""
    if not isinstance(result, Tensor) or isinstance(result, _WrittenThrough) or result.is_meta:
        return result
    for tensor in watched:
        if result.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() != 0:
            view = result.as_subclass(_WrittenThrough)
            view._whole, view._write = tensor._whole, tensor._write
            return view
    return result


def written_through(whole: Tensor, write: Callable[[Tensor], None]) -> Tensor:
    """``whole``, of any shape, such that in-place changes to it or its views call ``write(whole)``.

    ``whole`` must not share memory with what ``write`` writes to. Replacing ``.data`` or ``.grad``,
    or setting ``requires_grad``, raises RuntimeError.
    """
    tensor = whole.as_subclass(_WrittenThrough)
    tensor._whole, tensor._write = whole.detach(), write
    return tensor
