"""Digests of examples, which tell data sets of one name apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from torch import Tensor

_HEX_DIGITS = 16


def digest_of_tensors(tensors: Iterable[Tensor]) -> str:
    """Sixteen hex digits of a SHA-256 of the dtypes, shapes and values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()[:_HEX_DIGITS]


def digest_of_text(texts: Iterable[str]) -> str:
    """Sixteen hex digits of a SHA-256 of the texts."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()[:_HEX_DIGITS]
