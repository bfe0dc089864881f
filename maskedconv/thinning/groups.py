"""Channels that can only be removed together."""

from __future__ import annotations

import torch
from torch import Tensor


class Groups:
    """Numbered channels, joined if one cannot go without the other, as the operands of a sum."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        # By the root of each group.
        self._reasons: dict[int, str] = {}

    def new(self, count: int) -> Tensor:
        """Numbers of new channels, ``[count]``."""
        start = len(self._parents)
        self._parents += range(start, start + count)
        return torch.arange(start, start + count)

    def join(self, one: Tensor, other: Tensor) -> None:
        """Makes a group of each pair of channels; both tensors are ``[C]``."""
        for first, second in zip(one.tolist(), other.tolist(), strict=True):
            a, b = self._root(first), self._root(second)
            self._parents[a] = b
            if a != b and a in self._reasons:
                self._reasons.setdefault(b, self._reasons.pop(a))

    def keep(self, ids: Tensor, reason: str) -> None:
        """The groups of these channels stay."""
        for one in ids.tolist():
            self._reasons.setdefault(self._root(one), reason)

    def reasons(self, ids: Tensor) -> list[str | None]:
        """Why each channel stays; None if it can be removed."""
        return [self._reasons.get(self._root(one)) for one in ids.tolist()]

    def removable(self, ids: Tensor) -> Tensor:
        """Whether each channel can be removed, ``[C]``."""
        return torch.tensor([reason is None for reason in self.reasons(ids)], dtype=torch.bool)

    def _root(self, one: int) -> int:
        while self._parents[one] != one:
            self._parents[one] = self._parents[self._parents[one]]
            one = self._parents[one]
        return one
