"""The bank of a layer kept between its calls, where packing would convert every filter again."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv.ops.pack_filters import pack_filters


class _Packed(NamedTuple):
    """A bank, and what of the frozen filters it holds."""

    bank: Tensor
    frozen: weakref.ref[Tensor]
    version: int


class KeptBank:
    """Packs the filters of one layer; of a kept bank it writes only the learned ones again.

    Kept is a bank of another type than the filters (under autocast), as autocast keeps its copies
    of weights. Without a conversion packing is a mere copy, which costs less than the memory of
    keeping it. The frozen filters are taken for changed when they are another tensor or were
    written to in place (not through ``.data``, which leaves no trace).

    Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._packed: _Packed | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptBank, ()

    def pack(
        self,
        learned: Tensor,
        frozen: Tensor | None,
        slice_dim: int,
        dtype: torch.dtype,
        memory_format: torch.memory_format,
        backend: str = "",
    ) -> Tensor:
        """As :func:`pack_filters`. A kept bank changes at the next call, unseen by autograd:
        what saves it for backward must save ``learned`` too, whose change autograd does see.
        """
        if frozen is None or frozen.dtype == dtype or not self._keeps(learned, frozen):
            self._packed = None
            return pack_filters(learned, frozen, slice_dim, dtype, memory_format, backend)
        bank = self._bank_of(frozen, dtype, memory_format)
        if bank is None:
            bank = pack_filters(learned, frozen, slice_dim, dtype, memory_format, backend)
            self._packed = _Packed(bank, weakref.ref(frozen), frozen._version)
        else:
            bank.narrow(slice_dim, 0, learned.size(slice_dim)).copy_(learned)
        # Shares the memory, but not the count of changes: writing the same filters again between
        # two calls and their backwards is no change.
        return bank.data

    @staticmethod
    def _keeps(learned: Tensor, frozen: Tensor) -> bool:
        """Not in inference mode: autograd could not save its tensors for a backward later."""
        if torch.is_inference_mode_enabled():
            return False
        return not (learned.is_inference() or frozen.is_inference())

    def _bank_of(
        self, frozen: Tensor, dtype: torch.dtype, memory_format: torch.memory_format
    ) -> Tensor | None:
        """The kept bank if it holds these filters so, else None."""
        packed = self._packed
        if packed is None or packed.frozen() is not frozen or packed.version != frozen._version:
            return None
        bank = packed.bank
        same = bank.dtype == dtype and bank.is_contiguous(memory_format=memory_format)
        return bank if same else None
