"""The share of a data set that one of several processes computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The part ``index`` of ``count`` equal parts of each training batch, in the batch's order.

    Parts differ by one example at most, and the first part is never empty. Test batches are dealt
    as they are: every ``count``-th one, from ``index`` on.
    """

    index: int = 0
    count: int = 1

    def bounds(self, start: int, stop: int) -> tuple[int, int]:
        """The first example of the part of ``start`` to ``stop``, and the first one behind it."""
        size = stop - start
        first, end = (-(-size * index // self.count) for index in (self.index, self.index + 1))
        return start + first, start + end

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """As :meth:`bounds`; for an empty part, the bounds of the batch's last example.

        All processes take part in each step, so that one without an example needs an input. Its
        loss does not count.
        """
        first, end = self.bounds(start, stop)
        return (first, end) if first < end else (stop - 1, stop)

    def dealt(self, batches: Iterable[T]) -> Iterator[T]:
        """The test batches of this share."""
        return islice(batches, self.index, None, self.count)


WHOLE = Share()
