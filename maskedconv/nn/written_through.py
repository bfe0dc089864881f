"""Tensors that are assembled from parts, and hand in-place changes back to those parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._guards import TracingContext
from torch._subclasses import FakeTensor
from torch.utils._pytree import tree_leaves

from maskedconv.ops.geometry import is_channels_last_weight
from maskedconv.tracing import is_traced

# A view of an assembled tensor, and the values that belong there.
Now = tuple[Tensor, Tensor]

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


_IN_PLACE = {"__setitem__"} | {
    f"__i{name}__"
    for name in (
        "add", "and", "div", "floordiv", "lshift", "matmul", "mod", "mul", "or", "pow", "rshift",
        "sub", "truediv", "xor",
    )
}  # fmt: skip


def _refusal(name: str) -> RuntimeError:
    return RuntimeError(
        f"{name} would be lost: weight and bias of a MaskedConv2d are assembled from its parts at "
        "each access. Use `learned`, `frozen`, `bias_learned` or `bias_frozen`, change values in "
        "place, load a state dict, or take a copy (`weight.detach().clone()`)"
    )


@dataclass(eq=False)
class _Source:
    """An assembled tensor and the layer that it belongs to; all of its views share it.

    Attributes:
        whole: the values, in memory of its own.
        now: pairs of views of ``whole``, and the values of the parts there.
        write: copies ``whole`` to the parts of ``layer``.
    """

    layer: nn.Module
    whole: Tensor
    now: Callable[[Tensor], Iterable[Now]]
    write: Callable[[Tensor], None]

    @torch.no_grad()
    def refresh(self, *, compare: bool) -> None:
        """Takes over the present values of the parts, as after a step of an optimizer.

        Versions cannot tell whether they have changed, as ``.data`` leaves no trace in them.

        Args:
            compare: copies only values that differ. It takes several times as long as a copy, but a
                copy of equal values counts as a change of a saved tensor.
        """
        if self.whole.is_meta:
            return
        for view, values in self.now(self.whole):
            current = values.to(view).expand_as(view)
            if not (compare and torch.equal(view, current)):
                view.copy_(current)

    @torch.no_grad()
    def replace(self, values: Tensor) -> None:
        """Writes ``values`` of the same shape, and takes over their memory format."""
        self.whole.copy_(values)
        self.write(self.whole)
        if values.dim() == 4:
            last, was_last = map(is_channels_last_weight, (values, self.whole))
            if last != was_last:
                memory_format = torch.channels_last if last else torch.contiguous_format
                self.layer.to(memory_format=memory_format)  # type: ignore[call-overload]


class _WrittenThrough(Tensor):
    """After an operation that changed it in place, its values go to its layer."""

    _source: _Source
    _is_part: bool

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        _check_not_compiled()
        kwargs, name = kwargs or {}, getattr(func, "__name__", str(func))
        if func in _NOT_KEPT and isinstance(args[0], cls):
            raise _refusal(name)
        with torch._C.DisableTorchFunctionSubclass():
            if func in _COPIES:
                # A copy of the values alone, without the layer that they are written to.
                args = (_detached_copy(args[0]), *args[1:])
            watched = _marked((args, kwargs))
            in_place = _is_in_place(name, kwargs)
            if in_place:
                _refresh(watched, args[:1] if kwargs.get("out") is None else kwargs["out"])
            versions = [t._version for t in watched]
            result = func(*args, **kwargs)
            changed = [t for t, old in zip(watched, versions, strict=True) if t._version != old]
            if changed and not in_place:
                # It may have computed them from values that the parts no longer have.
                raise _refusal(f"the change by {name}")
            _write_back(changed)
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
        kinds = [(t.shape, t.dtype, t.device) for t in (value, self._source.whole)]
        if kinds[0] != kinds[1]:
            raise _refusal(f"weight.data of {kinds[0]}, which are not the weight's {kinds[1]},")
        self._source.replace(value)


def _check_not_compiled() -> None:
    """torch.compile takes such an input for an error of its own; of this one it makes a break."""
    if TracingContext.try_get() is not None:
        from torch._dynamo.exc import Unsupported

        raise Unsupported(
            "weight and bias of a MaskedConv2d cannot be passed into compiled code, which would "
            "not see changes in place: read them there, or pass a copy (`weight.clone()`)"
        )


def _is_in_place(name: str, kwargs: dict[str, Any]) -> bool:
    """Whether a function of this name may change its arguments, as PyTorch names them."""
    name = name.partition(".")[0]  # the overload of an operator
    suffixed = name.endswith("_") and not name.endswith("__")
    flagged = kwargs.get("out") is not None or bool(kwargs.get("inplace"))
    return suffixed or flagged or name in _IN_PLACE


def _marked(arguments: object) -> list[_WrittenThrough]:
    return [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, _WrittenThrough)]


def _sources(tensors: list[_WrittenThrough]) -> list[_Source]:
    return list(dict.fromkeys(tensor._source for tensor in tensors))


def _refresh(watched: list[_WrittenThrough], changed: object) -> None:
    """Before a change in place of ``changed``, by a function with the arguments ``watched``."""
    changing = _sources(_marked(changed))
    for source in _sources(watched):
        source.refresh(compare=source not in changing)


@torch.no_grad()
def _write_back(changed: list[_WrittenThrough]) -> None:
    """Writes the values of tensors, whose sources were up to date before the change."""
    sources = _sources(changed)
    if len(sources) == 1:
        sources[0].write(sources[0].whole)
        return
    # Sources of one layer do not have each other's changes.
    values = [tensor.detach().clone() for tensor in changed]
    for source in sources:
        source.refresh(compare=False)
        for tensor, own in zip(changed, values, strict=True):
            if tensor._source is source:
                tensor.detach().copy_(own)
        source.write(source.whole)


def _detached_copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().as_subclass(Tensor).clone()
    return copy.requires_grad_(tensor.requires_grad)


def _follow_views(result: Any, watched: list[_WrittenThrough]) -> Any:
    """A view (``.data``, ``.detach()``, ``[0]``) of an assembled tensor is written through too."""
    if type(result) in (tuple, list):
        return type(result)(_follow_views(item, watched) for item in result)
    if not isinstance(result, Tensor) or isinstance(result, _WrittenThrough) or result.is_meta:
        return result
    if result.layout is not torch.strided:
        return result
    for tensor in watched:
        if result.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr() != 0:
            return _mark(result, tensor._source, is_part=True)
    return result


def _mark(tensor: Tensor, source: _Source, is_part: bool) -> Tensor:
    marked = tensor.as_subclass(_WrittenThrough)
    vars(marked).update(_source=source, _is_part=is_part)
    return marked


def written_through(
    layer: nn.Module,
    read: Callable[[], Tensor],
    now: Callable[[Tensor], Iterable[Now]],
    write: Callable[[Tensor], None],
) -> Tensor:
    """The tensor of ``read``, such that in-place changes to it or its views are written back.

    Before a change it takes over the present values of the layer's parts. Setting ``.data`` writes
    the values, and gives the layer their memory format. Whatever would be lost raises RuntimeError:
    setting ``.grad`` or ``requires_grad``, hooks, other memory, a change by a function that PyTorch
    does not name as one in place. NumPy gets a view that cannot be written.

    In compiled code, while a graph is exported or traced, and for tensors without values
    (FakeTensor) it is the result of ``read``, to be read only: no change in place is noticed there.

    Args:
        read: assembles parts of ``layer``, of any shape, in memory of its own.
        now: pairs of a view of an earlier result of ``read``, and the values of the parts there.
            The views make up all of it; the values are of any type and device.
        write: copies values to the parts.

    Raises:
        TypeError: the parts are of a subclass of Tensor, such as DTensor.
    """
    if torch.compiler.is_compiling():
        return read()
    if torch.is_inference_mode_enabled():
        # Its tensors do not count their changes.
        with torch.inference_mode(False), torch.no_grad():
            whole = read()
    else:
        whole = read()
    if is_traced(whole) or isinstance(whole, FakeTensor):
        return whole
    if type(whole) is not Tensor:
        raise TypeError(
            f"weight and bias cannot be assembled from parts that are {type(whole).__name__}: "
            "read `learned` and `frozen`, `bias_learned` and `bias_frozen`"
        )
    return _mark(whole, _Source(layer, whole.detach(), now, write), is_part=False)


def is_of(value: object, write: Callable[[Tensor], None]) -> bool:
    """Whether ``value`` is what :func:`written_through` made for ``write``, and not a view."""
    own = isinstance(value, _WrittenThrough) and not value._is_part
    return own and cast(_WrittenThrough, value)._source.write == write
