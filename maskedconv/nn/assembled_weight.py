"""A weight that is assembled from a learned and a frozen part, and how it is written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import NoReturn

from torch import Tensor, nn

from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.written_through import Now, is_of, written_through


class AssembledWeight(PartlyLearned):
    """A layer whose ``weight`` is no parameter.

    It is assembled anew at each access, changed in place through to its parts, and never replaced
    or deleted (AttributeError).
    """

    _assembled: tuple[str, ...] = ("weight",)

    @abstractmethod
    def _full_weight(self) -> Tensor:
        """The weight, of ``weight_shape``; it may be a buffer of the layer itself."""

    @abstractmethod
    def _write_weight(self, weight: Tensor) -> None:
        """Copies ``weight`` to the parts."""

    def _weight_now(self, weight: Tensor) -> Iterable[Now]:
        """Views that make up ``weight``, assembled earlier, and the values they should have."""
        return ((weight, self._full_weight()),)

    def _own_weight(self) -> Tensor:
        """The weight in memory of its own."""
        weight = self._full_weight()
        is_buffer = any(weight is buffer for buffer in self._buffers.values())
        return weight.clone() if is_buffer else weight

    @property
    def weight(self) -> Tensor:
        """The full weight, of ``weight_shape``; differentiable towards the learned part."""
        return written_through(self, self._own_weight, self._weight_now, self._write_weight)

    @weight.setter
    def weight(self, value: Tensor) -> None:
        self._refuse_unless_own("weight", value, self._write_weight)

    @weight.deleter
    def weight(self) -> None:
        self._refuse("weight")

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As ``nn.Module`` does; AttributeError for what is assembled."""
        if name in self._assembled:
            self._refuse(name)
        super().register_parameter(name, param)

    def _refuse_unless_own(self, name: str, value: object, write: Callable[[Tensor], None]) -> None:
        """``weight *= 2`` ends in an assignment of what is written through already."""
        if not is_of(value, write):
            self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{name} of a {type(self).__name__} is assembled from its learned and frozen parts and "
            f"cannot be replaced or deleted: copy values into it (`layer.{name}.data.copy_("
            "values)`), or make a plain layer first (`layer.to_plain()`, "
            "`maskedconv.merge_(model)`)"
        )
