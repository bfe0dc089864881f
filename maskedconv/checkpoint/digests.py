"""Digests of tensors, whatever their memory format and device."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

# Hexadecimal digits of a check: 64 bits, enough to find any damage that is not intended.
CHECK_LENGTH = 16


def fingerprint(tensor: Tensor) -> str:
    """SHA-256 of type, shape and values, whatever the memory format and device."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    # Flat: a contiguous tensor with a dimension of size 1 may have any stride there.
    digest.update(memoryview(plain(tensor).flatten().view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()


def check_of(name: str, digest: str) -> str:
    """The start of the SHA-256 of a tensor's name and :func:`fingerprint`."""
    return hashlib.sha256(f"{name} {digest}".encode()).hexdigest()[:CHECK_LENGTH]


def plain(tensor: Tensor) -> Tensor:
    """``tensor`` as contiguous values in the CPU's memory, without lazy signs."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def type_name(dtype: torch.dtype) -> str:
    """``float32`` and so on."""
    return str(dtype).removeprefix("torch.")
