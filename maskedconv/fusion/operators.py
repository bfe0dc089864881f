"""The functions of PyTorch whose results backward can compute again at little cost."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedconv.fusion.session import SMALL, Session
from maskedconv.fusion.sources import Recomputed, Source
from maskedconv.ops.devices import autocast_dtype


class _TensorArgument(NamedTuple):
    """Stands for a tensor among the arguments of a call."""

    position: int


class _Call:
    """A call of a function, without the tensors among its arguments.

    Under autocast, it is repeated under the same autocast.
    """

    def __init__(self, func: Any, args: list[Any], kwargs: dict[str, Any], device: str) -> None:
        self.func, self._args, self._kwargs = func, args, kwargs
        self._device, self._autocast = device, autocast_dtype(device)

    @staticmethod
    def of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[_Call, list[Tensor]]:
        """The call, and the tensors, those in lists included."""
        tensors: list[Tensor] = []
        places = [_without(arg, tensors) for arg in args]
        named = {name: _without(arg, tensors) for name, arg in kwargs.items()}
        device = tensors[0].device.type if tensors else "meta"
        return _Call(func, places, named, device), tensors

    def repeat(self, tensors: Sequence[Tensor]) -> Tensor:
        """The result for other values of the tensors."""
        args = [_filled(arg, tensors) for arg in self._args]
        kwargs = {name: _filled(arg, tensors) for name, arg in self._kwargs.items()}
        if self._autocast is None:
            return self.func(*args, **kwargs)
        with torch.autocast(self._device, self._autocast):
            return self.func(*args, **kwargs)

    def out_of_place(self, values: Sequence[Tensor], may_change: bool) -> Tensor:
        """The result in new memory, of a function that does not change its arguments."""
        return self.repeat(values)

    def in_place(self, values: Sequence[Tensor], may_change: bool) -> Tensor:
        """The result of a function that changes its first argument."""
        first, *others = values
        return self.repeat([first if may_change else first.clone(), *others])


def _without(arg: Any, tensors: list[Tensor]) -> Any:
    """``arg`` with a place for each tensor, which is appended to ``tensors``."""
    if isinstance(arg, Tensor):
        tensors.append(arg)
        return _TensorArgument(len(tensors) - 1)
    return [_without(one, tensors) for one in arg] if isinstance(arg, list | tuple) else arg


def _filled(arg: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(arg, _TensorArgument):
        return tensors[arg.position]
    return [_filled(one, tensors) for one in arg] if isinstance(arg, list) else arg


def _run(session: Session, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs a function whose result depends on its arguments alone."""
    return _recorded(session, partial(func, *args, **kwargs), *_Call.of(func, args, kwargs))


def _run_norm(session: Session, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs a norm that may have running statistics."""
    again = _Call.of(func, _repeatable(func, args, kwargs), {})
    return _recorded(session, partial(func, *args, **kwargs), *again)


def _repeatable(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Arguments of a norm that give the same result again, and change nothing.

    The statistics are None where they are the input's own, and otherwise copies, because a forward
    pass in training may change the originals before backward.
    """
    bound = _SIGNATURES[func].bind(*args, **kwargs)
    bound.apply_defaults()
    input, mean, var, weight, bias, own, _, eps = bound.args
    if own:
        mean = var = None
    elif mean is not None:
        mean, var = mean.detach().clone(), var.detach().clone()
    return input, mean, var, weight, bias, own, 0.0, eps


def _recorded(
    session: Session, run: Callable[[], Any], call: _Call, tensors: Sequence[Tensor]
) -> Any:
    """The result of ``run``, recorded as that of ``call`` with ``tensors``."""
    if not tensors:
        return run()
    overwritten = session.find(tensors[0])
    with session.deferring(tensors):
        result = run()
        if isinstance(result, Tensor) and result.requires_grad:
            _record(session, result, call, tensors, overwritten)
    return result


def _record(
    session: Session,
    result: Tensor,
    call: _Call,
    tensors: Sequence[Tensor],
    overwritten: Source | None,
) -> None:
    """Records ``result`` if all of ``tensors`` are known.

    Args:
        overwritten: the source of the first tensor before the call.
    """
    is_in_place = result.untyped_storage()._cdata == tensors[0].untyped_storage()._cdata
    joins, unsaved = call.func in _JOINING, call.func in _SUMS
    sources = [
        session.find_or_keep(one, result, instead=joins, unsaved=unsaved)
        for one in tensors[is_in_place:]
    ]
    if is_in_place:
        # A kept tensor is lost as it is overwritten.
        original = overwritten if isinstance(overwritten, Recomputed) else None
        sources.insert(0, original)
        if original:
            session.overwrites(original, result)
    known = [source for source in sources if source is not None]
    if len(known) == len(sources):
        compute = call.in_place if is_in_place else call.out_of_place
        session.record(result, compute, known, is_join=joins or _count_large(known, result) > 1)


def _count_large(sources: Sequence[Source], result: Tensor) -> int:
    return sum(source.geometry.shape.numel() * SMALL > result.numel() for source in sources)


_SIGNATURES = {func: inspect.signature(func) for func in (F.batch_norm, F.instance_norm)}
# Their arguments have as many bytes as their results.
_JOINING = frozenset({torch.cat, torch.concat, torch.concatenate})
_NORMS = (F.group_norm, F.layer_norm, F.rms_norm)
_ACTIVATIONS = (
    *(F.relu, F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.selu, F.celu),
    *(F.silu, F.gelu, F.mish, F.softplus, F.hardswish, F.hardsigmoid),
    *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh, torch.clamp),
    *(Tensor.relu, Tensor.relu_, Tensor.sigmoid, Tensor.tanh, Tensor.clamp),
)
# Backward needs none of their arguments.
_SUMS = frozenset({torch.add, torch.sub, Tensor.add, Tensor.sub, Tensor.add_, Tensor.sub_})
_ARITHMETIC = (*_SUMS, torch.mul, Tensor.mul, Tensor.mul_)
# Runs a function within a session, by the function.
OPERATORS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((*_NORMS, *_ACTIVATIONS, *_ARITHMETIC, *_JOINING), _run),
    **dict.fromkeys(_SIGNATURES, _run_norm),
}
NORMS = frozenset((*_NORMS, *_SIGNATURES))
