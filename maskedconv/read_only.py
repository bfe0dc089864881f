"""Tensors that raise where they would be changed in place; torch.compile can trace them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_VIEW_NAMES = (
    "__getitem__ as_strided chunk contiguous detach diagonal expand expand_as flatten float movedim "
    "narrow permute reshape reshape_as select split squeeze swapaxes swapdims t to transpose "
    "unbind unflatten unfold unsqueeze view view_as"
)
_VIEW_ATTRIBUTES = "data T mT H mH real"


def _functions(names: Iterable[str], *spaces: Any) -> set[Any]:
    return {getattr(space, name) for name in names for space in spaces if hasattr(space, name)}


def _changes_in_place(name: str) -> bool:
    dunder = name.startswith("__i") and name not in ("__init__", "__init_subclass__", "__index__")
    return name == "__setitem__" or dunder or (name.endswith("_") and not name.endswith("__"))


_CHANGES = _functions(filter(_changes_in_place, dir(Tensor)), Tensor)
_CHANGES |= _functions(filter(_changes_in_place, dir(torch)), torch)
_CHANGES |= _functions(filter(_changes_in_place, dir(nn.init)), nn.init)
_CHANGES |= {vars(torch._C.TensorBase)[n].__set__ for n in ("data", "grad", "requires_grad")}
_VIEWS = _functions(_VIEW_NAMES.split(), Tensor, torch)
_VIEWS |= {getattr(Tensor, name).__get__ for name in _VIEW_ATTRIBUTES.split()}


class _ReadOnly(Tensor):
    """Its views are read-only too; all else that is computed from it is a plain tensor."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        changed = args[0] if func in _CHANGES and args else kwargs.get("out")
        if isinstance(changed, cls):
            raise RuntimeError(
                "weight and bias of a MaskedConv2d can only be read in compiled code: change "
                "`learned` or `frozen` there, or the weight outside of torch.compile"
            )
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        if func not in _VIEWS:
            return result
        if isinstance(result, (tuple, list)):
            return type(result)(view.as_subclass(cls) for view in result)
        return result.as_subclass(cls)


def read_only(tensor: Tensor) -> Tensor:
    """``tensor``, such that changing it or a view of it in place raises RuntimeError."""
    return tensor.as_subclass(_ReadOnly)
