"""Tensors that are assembled from parts, and hand in-place changes back to those parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.utils._pytree import tree_leaves

from maskedconv.tracing import is_traced

_ATTRIBUTES = vars(torch._C.TensorBase)

# On an assembled tensor these would change nothing that the module keeps.
_NOT_KEPT: set[Any] = {
    Tensor.requires_grad_,
    Tensor.detach_,
    Tensor.resize_,
    Tensor.resize_as_,
    Tensor.share_memory_,
    Tensor.register_hook,
    Tensor.register_post_accumulate_grad_hook,
    Tensor.__dlpack__,
    *(_ATTRIBUTES[name].__set__ for name in ("requires_grad", "data", "grad")),
}
_GRAD = _ATTRIBUTES["grad"].__get__
_ARRAYS: set[Any] = {Tensor.numpy, Tensor.__array__}
_COPIES: set[Any] = {Tensor.__deepcopy__, Tensor.__reduce_ex__}


def _refusal(name: str) -> RuntimeError:
    return RuntimeError(
        f"{name} would be lost: weight and bias of a MaskedConv2d are assembled from its parts at "
        "each access. Use `learned`, `frozen`, `bias_learned` or `bias_frozen`, change values in "
        "place, load a state dict, or take a copy (`weight.detach().clone()`)"
    )


class _WrittenThrough(Tensor):
    """After an operation that changed it in place, its values go to ``_write``."""

    _whole: Tensor
    _write: Callable[[Tensor], None]
    _is_part: bool

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _NOT_KEPT and isinstance(args[0], cls):
            raise _refusal(getattr(func, "__name__", str(func)))
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in _COPIES:
                # Of the values alone: not of the layer that they are written to.
                args = (_detached_copy(args[0]), *args[1:])
            watched = [t for t in tree_leaves((args, kwargs)) if isinstance(t, cls)]
            versions = [t._version for t in watched]
            result = func(*args, **kwargs)
            for tensor, version in zip(watched, versions, strict=True):
                if tensor._version != version:
                    tensor._write(tensor._whole)
            if func == _GRAD and result is None and args[0].requires_grad:
                raise _refusal("weight.grad")
            if func in _ARRAYS and not result.flags.owndata:
                # NumPy's changes would not be seen.
                result.setflags(write=False)
            return _follow_views(result, watched)

    def set_(self, *args: Any, **kwargs: Any) -> Tensor:
        """Always raises; PyTorch does not ask ``__torch_function__`` about it."""
        raise _refusal("weight.set_")

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "data" or self._is_part:
            raise _refusal(f"weight.{name}")
        kinds = [(t.shape, t.dtype, t.device) for t in (value, self._whole)]
        if kinds[0] != kinds[1]:
            raise _refusal(f"weight.data of {kinds[0]}, which are not the weight's {kinds[1]},")
        with torch.no_grad():
            self._whole.copy_(value)
        self._write(self._whole)


def _detached_copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().as_subclass(Tensor).clone()
    return copy.requires_grad_(tensor.requires_grad)


def _follow_views(result: Any, watched: list[_WrittenThrough]) -> Any:
    """A view (``.data``, ``.detach()``, ``[0]``) of an assembled tensor is written through too."""
    if type(result) in (tuple, list):
        return type(result)(_follow_views(item, watched) for item in result)
    if not isinstance(result, Tensor) or isinstance(result, _WrittenThrough) or result.is_meta:
        return result
    for tensor in watched:
        if result.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() != 0:
            return _mark(result, tensor._whole, tensor._write, is_part=True)
    return result


def _mark(tensor: Tensor, whole: Tensor, write: Callable[[Tensor], None], is_part: bool) -> Tensor:
    marked = tensor.as_subclass(_WrittenThrough)
    vars(marked).update(_whole=whole, _write=write, _is_part=is_part)
    return marked


def written_through(whole: Tensor, write: Callable[[Tensor], None]) -> Tensor:
    """``whole``, of any shape, such that in-place changes to it or its views call ``write(whole)``.

    ``whole`` must not share memory with what ``write`` writes to. Setting ``.data`` writes the
    values. Whatever would be lost raises RuntimeError: setting ``.grad`` or ``requires_grad``,
    hooks, other memory. NumPy gets a view that cannot be written.

    In compiled code, while a graph is exported or traced, and for tensors without values
    (FakeTensor) it is ``whole`` itself, to be read only: nothing there sees a change in place.

    Raises:
        TypeError: ``whole`` is another subclass of Tensor.
    """
    if torch.compiler.is_compiling() or is_traced(whole) or isinstance(whole, FakeTensor):
        return whole
    if type(whole) is not Tensor:
        raise TypeError(
            f"weight and bias cannot be assembled from parts that are {type(whole).__name__}: "
            "read `learned` and `frozen`, `bias_learned` and `bias_frozen`"
        )
    return _mark(whole, whole.detach(), write, is_part=False)


def is_of(value: object, write: Callable[[Tensor], None]) -> bool:
    """Whether ``value`` is what :func:`written_through` made for ``write``, and not a view."""
    return isinstance(value, _WrittenThrough) and value._write == write and not value._is_part
