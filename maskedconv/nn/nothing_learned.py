"""Empty tensors, which stand for what is not learned. They have a type and a device, but no values.

No state dict has them, and training changes none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def nothing_like(empty: Tensor, values: Tensor) -> Tensor:
    """``empty`` itself, or one of its shape, with the type and device of ``values``."""
    kind = values.dtype, values.device
    if (empty.dtype, empty.device) == kind:
        return empty
    return torch.empty(empty.shape, dtype=kind[0], device=kind[1])


def moving_nothing(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn`` for ``nn.Module._apply``, which also moves an empty tensor off the meta device.

    PyTorch refuses it, as the values are missing. A layer has such a tensor beside values if they
    were assigned to it.
    """

    def moved(tensor: Tensor) -> Tensor:
        try:
            return fn(tensor)
        except NotImplementedError:
            if tensor.numel() or not tensor.is_meta:
                raise
            return fn(torch.empty_like(tensor, device="cpu"))

    return moved
