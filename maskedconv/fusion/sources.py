"""Tensors that backward needs: kept ones, and ones that it computes again from kept ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

_CHANGED = (
    "one of the variables needed for gradient computation has been modified by an inplace "
    "operation: a tensor of shape {shape} is at version {now}; expected version {then}"
)
# The hooks that PyTorch's `saved_tensors_hooks` takes.
Hooks = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]
# Takes the values of the sources, and whether it may change the first one.
Compute = Callable[[Sequence[Tensor], bool], Tensor]


class Geometry(NamedTuple):
    """The place of a tensor in its storage, in elements of a type."""

    shape: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype

    @staticmethod
    def of(tensor: Tensor) -> Geometry:
        return Geometry(tensor.shape, tensor.stride(), int(tensor.storage_offset()), tensor.dtype)

    def in_storage_of(self, tensor: Tensor) -> Tensor:
        """The view of ``tensor``, which begins its storage and is of the same type."""
        return tensor.as_strided(self.shape, self.stride, self.offset)


class Source(Protocol):
    """A tensor that backward can have.

    Attributes:
        geometry: of the tensor.
        joins: how many results of several large tensors have to be computed for it, at most, one
            after the other.
        unpacked: the tensors with surrounding hooks that it is computed from.
    """

    geometry: Geometry
    joins: int

    @property
    def unpacked(self) -> frozenset[SavedTensor]: ...

    def value(self) -> Tensor: ...

    def labels(self) -> set[str]:
        """The modules that computed it and its sources."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether someone else may read the memory of :meth:`value`."""
        ...


class _Held:
    """A value that is held from the first use in a backward pass to the last one."""

    def __init__(self) -> None:
        self.uses = self._left = 0
        self.value: Tensor | None = None

    def add_use(self) -> None:
        self.uses += 1
        self._left += 1

    def end_use(self) -> None:
        self._left -= 1
        if not self._left:
            self.value, self._left = None, self.uses

    def get(self, make: Callable[[], Tensor]) -> Tensor:
        """The value; without uses it is made at each call."""
        value = make() if self.value is None else self.value
        if self.uses:
            self.value = value
        return value


class SavedTensor:
    """A tensor that is kept for backward.

    Surrounding hooks unpack it once in a backward pass, as autograd unpacks each tensor that it
    saves. ``torch.utils.checkpoint`` refuses a second time.

    Args:
        outer: hooks that surround the model, such as ``save_on_cpu``; they keep the tensor then.
    """

    joins = 0
    is_shared = True

    def __init__(self, tensor: Tensor, outer: Hooks | None) -> None:
        self.geometry = Geometry.of(tensor)
        self._version = tensor._version
        self._outer = outer
        # The operation that computed the tensor may save it. Its graph would hold itself by the
        # ``grad_fn``, and PyTorch frees such a graph only in a backward pass.
        self._packed = tensor.detach() if outer is None else outer[0](tensor)
        self.held = _Held()

    @property
    def unpacked(self) -> frozenset[SavedTensor]:
        return frozenset() if self._outer is None else frozenset((self,))

    def add_use(self) -> None:
        """Says that backward will call :meth:`use` once more."""
        self.held.add_use()

    def use(self) -> Tensor:
        """The tensor, for one of the uses."""
        value = self.value()
        self.held.end_use()
        return value

    def value(self) -> Tensor:
        """The tensor.

        Raises:
            RuntimeError: it was changed in place, as autograd raises without hooks.
        """
        if self._outer is not None:
            unpack = self._outer[1]
            return self.held.get(lambda: unpack(self._packed))
        now = self._packed._version
        if now != self._version:
            shape = list(self.geometry.shape)
            raise RuntimeError(_CHANGED.format(shape=shape, now=now, then=self._version))
        return self._packed

    def labels(self) -> set[str]:
        return set()


class Recomputed:
    """A tensor that is computed again from others when backward needs it.

    The first use in a backward pass computes it, and the last one frees it.

    Args:
        compute: the function that computes it.
        sources: the tensors that it is computed from.
        geometry: of the result of the forward pass; dense, with a storage of its own.
        joins: as of :class:`Source`.
        label: the module that computed it, for messages.
    """

    def __init__(
        self,
        compute: Compute,
        sources: Sequence[Source],
        geometry: Geometry,
        joins: int,
        label: str,
    ) -> None:
        self.geometry, self.joins, self.label = geometry, joins, label
        self._compute, self._sources = compute, sources
        self._held = _Held()
        self.unpacked = frozenset[SavedTensor]().union(*(source.unpacked for source in sources))

    @property
    def is_shared(self) -> bool:
        return self._held.value is not None

    def add_use(self) -> None:
        """Says that backward will call :meth:`use` once more."""
        for held in self._all_held():
            held.add_use()

    def use(self) -> Tensor:
        """The value, for one of the uses."""
        value = self.value()
        for held in self._all_held():
            held.end_use()
        return value

    def value(self) -> Tensor:
        """The value; it is held until the last use if there are any."""
        return self._held.get(self._computed)

    def _all_held(self) -> Iterator[_Held]:
        """This value and the unpacked tensors that it needs: a use counts for each of them."""
        yield self._held
        for kept in self.unpacked:
            yield kept.held

    def labels(self) -> set[str]:
        return {self.label}.union(*(source.labels() for source in self._sources))

    def _computed(self) -> Tensor:
        """The value in new memory, with the strides of the forward pass."""
        with torch.no_grad():
            values = [source.value() for source in self._sources]
            value = self._compute(values, not self._sources[0].is_shared)
            shape, stride, _, dtype = self.geometry
            if value.stride() == stride and value.dtype == dtype:
                return value
            laid_out = torch.empty_strided(shape, stride, dtype=dtype, device=value.device)
            return laid_out.copy_(value)


class View:
    """A view of a tensor that is recomputed."""

    is_shared = True

    def __init__(self, base: Recomputed, geometry: Geometry) -> None:
        self._base, self.geometry, self.joins = base, geometry, base.joins

    @property
    def unpacked(self) -> frozenset[SavedTensor]:
        return self._base.unpacked

    def value(self) -> Tensor:
        return self.geometry.in_storage_of(self._base.value())

    def labels(self) -> set[str]:
        return self._base.labels()


class Use:
    """The object that autograd holds instead of a recomputed tensor, or of a view of one.

    Args:
        geometry: of the view; None for all of it.
    """

    def __init__(self, source: Recomputed, geometry: Geometry | None) -> None:
        self.source, self._geometry = source, geometry
        source.add_use()

    def use(self) -> Tensor:
        value = self.source.use()
        return value if self._geometry is None else self._geometry.in_storage_of(value)


class Deferred:
    """The object that autograd holds until it is known whether a result is recomputed."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor: Tensor | None = tensor
        self._saved: SavedTensor | Use | None = None

    def decide(self, pack: Callable[[Tensor], SavedTensor | Use]) -> None:
        assert self._tensor is not None
        self._saved, self._tensor = pack(self._tensor), None

    def decided(self) -> SavedTensor | Use:
        assert self._saved is not None
        return self._saved

    def use(self) -> Tensor:
        return self.decided().use()
