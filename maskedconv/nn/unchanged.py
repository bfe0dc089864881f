"""Tensors whose values nothing but their owner may change in place.

An average of models that includes buffers (``AveragedModel(use_buffers=True)``) moves integers, as
it truncates their mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.plain import is_plain

_KNOWN = "_known_values"  # an attribute of the tensor, which a deep copy has as well


def forget_values(tensor: Tensor | None) -> None:
    """Called after the owner has changed the values."""
    if tensor is not None:
        vars(tensor).pop(_KNOWN, None)


def check_unchanged(tensor: Tensor, name: str) -> None:
    """RuntimeError if the values are not those of the first call since :func:`forget_values`.

    Values are compared only when something has written into the memory.
    """
    if not is_plain(tensor) or tensor.is_inference():
        return
    version, known = tensor._version, vars(tensor).get(_KNOWN)
    if known is None:
        vars(tensor)[_KNOWN] = version, tensor.detach().clone()
    elif version != known[0]:
        if not torch.equal(tensor, known[1].to(tensor.device)):
            raise RuntimeError(
                f"{name} was changed in place, as by an average of models that includes buffers; "
                "expected an average of the parameters alone (use_buffers=False), or "
                "load_state_dict for other values"
            )
        vars(tensor)[_KNOWN] = version, known[1]
