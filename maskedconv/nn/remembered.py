"""Remembers the frozen values a layer was made with, and whether a seed gives them again.

An average of models that includes buffers moves them by rounding; so may any code that writes into
all values of a model. Values that were drawn without a seed are nowhere else.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.ops.plain import is_plain, version_and_address

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SUMS, _DRAWN = "_frozen_sums", "_drawn_frozen"
_FIRST = 64  # values, enough to tell drawn ones from others
_PIECE = 1 << 20  # values that are summed at once
_RECORD = "_recorded_sum"  # an attribute of the tensor, as tasks exchange the tensors of a layer


class _Record(NamedTuple):
    """A sum of a tensor's values, and its version and address when they last had this sum."""

    total: int
    state: tuple[int, int] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy or pickle may get the address of a tensor that is gone.
        return _Record, (self.total,)


# torch.load reads a state dict with keep_vars, whose tensors have this attribute.
torch.serialization.add_safe_globals([_Record])


def record_values(tensor: Tensor) -> None:
    """Called after the owner of a tensor has changed its values. Copies keep the record."""
    vars(tensor).pop(_RECORD, None)
    has_recorded_values(tensor)


def is_recorded(tensor: Tensor | None) -> bool:
    return tensor is not None and _RECORD in vars(tensor)


def has_recorded_values(tensor: Tensor) -> bool:
    """Whether the values are the recorded ones; records them if none are.

    They are summed only if something has written into the memory, or if the tensor is a copy. True
    for a tensor without memory of its own.
    """
    if not is_plain(tensor):
        return True
    record, state = vars(tensor).get(_RECORD), version_and_address(tensor)
    if record is not None and record.state == state:
        return True
    total = sum_of_bits(tensor)
    if record is not None and record.total != total:
        return False
    vars(tensor)[_RECORD] = _Record(total, state)
    return True


def with_records(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn`` for ``nn.Module._apply``, which moves tensors; its results keep their records."""

    def moved(tensor: Tensor) -> Tensor:
        result = fn(tensor)
        if result is not tensor and is_recorded(tensor):
            vars(result)[_RECORD] = _Record(vars(tensor)[_RECORD].total)
        return result

    return moved


def remember_frozen(layer: PartlyLearned) -> None:
    """Records the present frozen values, by a sum for each tensor."""
    vars(layer)[_SUMS] = _sums(layer)


def remember_draw(layer: PartlyLearned, seed: int | None) -> None:
    """Called when the frozen values have been drawn, by ``seed`` if it is not None.

    It records them as :func:`remember_frozen` does.
    """
    remember_frozen(layer)
    if seed is None:
        firsts = {name: _first(one) for name, one in _in_memory(layer).items()}
        # Zeros, as of biases, are not drawn.
        vars(layer)[_DRAWN] = {name: values for name, values in firsts.items() if any(values)}
    else:
        vars(layer).pop(_DRAWN, None)


def forget_frozen(layer: nn.Module) -> None:
    """Called when a plain layer's weight replaces the values, which then are whatever it has."""
    for name in (_SUMS, _DRAWN):
        vars(layer).pop(name, None)


def changed_frozen(layer: PartlyLearned) -> list[str]:
    """Names of frozen buffers that have other values, of the same type, than were recorded."""
    before: dict[str, tuple[torch.dtype, int]] = vars(layer).get(_SUMS, {})
    return [
        name
        for name, (dtype, total) in (_sums(layer) if before else {}).items()
        if name in before and before[name][0] == dtype and before[name][1] != total
    ]


def drawn_frozen(layer: PartlyLearned) -> list[str]:
    """Names of frozen buffers with the values that were drawn without a seed, in any type."""
    before: dict[str, array[float]] = vars(layer).get(_DRAWN, {})

    def first_drawn(name: str, dtype: torch.dtype) -> array[float]:
        return _first(torch.tensor(before[name], dtype=torch.float64, device="cpu").to(dtype))

    return [
        name
        for name, one in (_in_memory(layer) if before else {}).items()
        if name in before and first_drawn(name, one.dtype) == _first(one)
    ]


def _in_memory(layer: PartlyLearned) -> dict[str, Tensor]:
    """The frozen tensors that have values, by name."""
    tensors = {name: getattr(layer, name) for name in layer.frozen_buffers()}
    return {
        name: one
        for name, one in tensors.items()
        if type(one) is Tensor and not one.is_meta and one.numel()
    }


def _first(tensor: Tensor) -> array[float]:
    # No tensor, as a module's attributes are searched for those that it shares.
    return array("d", tensor[:_FIRST].flatten()[:_FIRST].tolist())


def _sums(layer: PartlyLearned) -> dict[str, tuple[torch.dtype, int]]:
    """Type and sum of each frozen tensor in memory, by name."""
    return {
        name: (one.dtype, sum_of_bits(one))
        for name, one in _in_memory(layer).items()
        if one.itemsize in _INTEGERS
    }


def sum_of_bits(tensor: Tensor) -> int:
    """A sum over the bits of all values, in any order."""
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for bits in tensor.detach().view(_INTEGERS[tensor.itemsize]).flatten().split(_PIECE):
        # Squares, as roundings up and down would cancel out; modulo the range of their type.
        total += torch.addcmul(bits, bits, bits).sum()
    return int(total)
