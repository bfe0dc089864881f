"""The memory that autograd saves for backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def saved_storages(own: Iterable[Tensor], found: Callable[[Tensor], object]) -> Iterator[None]:
    """Calls ``found`` with a tensor of each storage that autograd saves, except those of ``own``.

    A storage is named once, by the tensor that is saved first. Its ``grad_fn`` is None.
    """
    # The tensors are held, so that no other storage gets the address of one.
    known = {one.untyped_storage()._cdata: one.detach() for one in own}

    def pack(tensor: Tensor) -> Tensor:
        # The operation that computed a tensor may save it. Its graph would then hold itself, and
        # PyTorch frees such a graph only in a backward pass.
        tensor = tensor.detach()
        address = tensor.untyped_storage()._cdata
        if address not in known:
            known[address] = tensor
            found(tensor)
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
    finally:
        # The graph refers to ``pack``.
        known.clear()
