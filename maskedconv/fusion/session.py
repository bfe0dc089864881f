"""A forward pass that keeps for backward only tensors that are not cheap to compute again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from maskedconv.fusion.sources import (
    Compute,
    Deferred,
    Geometry,
    Hooks,
    Recomputed,
    SavedTensor,
    Source,
    Use,
    View,
)
from maskedconv.fusion.unwinding import is_running, remove_hooks, remove_mode

# A tensor that is smaller than the result by this factor is kept in any case.
SMALL = 8
# At most so many sums or concatenations of a chain are computed again; a residual network keeps
# the result behind every second block, so that backward does not compute all blocks again at once.
_JOINS = 2


class _Entry(NamedTuple):
    """A storage at a version.

    The weak reference prevents another storage at the same address.
    """

    storage: StorageWeakRef
    version: int
    source: SavedTensor | Recomputed


class Session(TorchFunctionMode):
    """Within it, autograd keeps recipes instead of results of norms and element-wise functions.

    Every function runs as without it. Results of the functions in ``operators`` are recorded, if
    their arguments are kept anyway. If autograd is to keep a recorded result, it gets the recipe.
    A recorded tensor that anything else changes in place has another version, and is kept.

    Args:
        operators: for each function of PyTorch, one that runs it and records its result.
        copy_parameters: whether copies of norms' parameters are kept, because their memory is
            freed after the forward pass (FSDP2).
        frame: of the call of the model. Nothing is recorded after its end, even if the session has
            not been exited; None to rely on the exit.
    """

    def __init__(
        self,
        operators: Mapping[Any, Callable[..., Any]],
        *,
        copy_parameters: bool = False,
        frame: FrameType | None = None,
    ) -> None:
        super().__init__()
        self._frame, self._is_over = frame, False
        self._copy_parameters = copy_parameters
        # The module that runs, if a subclass sets it.
        self.label = ""
        # How many modules run in which nothing is recorded: hooks of them count.
        self.paused = 0
        self._operators = operators
        self._entries: dict[int, _Entry] = {}
        # Storage and version of each argument of the function that runs.
        self._arguments: set[tuple[int, int]] | None = None
        # Source and storage of a tensor that the function that runs overwrites.
        self._original: tuple[Recomputed, int] | None = None
        self._deferred: list[Deferred] = []
        # Only the innermost hooks are called.
        self._outer: Hooks | None = None
        self._outer_mode: TorchFunctionMode | None = None
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self.unpack)

    def __enter__(self) -> Self:
        self._outer = torch._C._autograd._top_saved_tensors_default_hooks(False)
        self._outer_mode = _get_current_function_mode()
        self._hooks.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.__exit__(*error)
        self._end()

    def is_over(self) -> bool:
        """Whether the call of the model has ended."""
        if self._frame is not None and not is_running(self._frame):
            self._end()
        return self._is_over

    def _end(self) -> None:
        # Tensors saved for backward refer to the session, and the frame to the model's result.
        self._is_over, self._frame = True, None
        self._entries.clear()

    def abandon(self) -> None:
        """Exits the session after the call has ended, when others may have been entered."""
        remove_mode(self, self._outer_mode)
        remove_hooks((self._hooks.pack_hook, self._hooks.unpack_hook), self._outer)
        self._end()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if torch.compiler.is_compiling():
            # A compiled part of the model decides itself what to compute again.
            return func(*args, **(kwargs or {}))
        run = self._operators.get(func)
        if run is None or self.paused or not torch.is_grad_enabled() or self.is_over():
            return func(*args, **(kwargs or {}))
        return run(self, func, args, kwargs or {})

    @contextmanager
    def deferring(self, arguments: Sequence[Tensor]) -> Iterator[None]:
        """Around a function and the recording of its result, which the function may save itself."""
        versions = (one for one in arguments if _is_ordinary(one))
        self._arguments = {(one.untyped_storage()._cdata, one._version) for one in versions}
        try:
            yield
        finally:
            self._arguments = None
            while self._deferred:
                self._deferred.pop().decide(self._decide)
            self._original = None

    def overwrites(self, original: Recomputed, tensor: Tensor) -> None:
        """Says that the function that runs changes ``tensor``, the result of ``original``.

        PyTorch then saves a copy if backward needs the original (hardtanh, SiLU, hardswish).
        """
        self._original = original, tensor.untyped_storage()._cdata

    def find(self, tensor: Tensor) -> Source | None:
        """The source that has exactly this tensor; None if backward does not have it."""
        if not _is_ordinary(tensor):
            return None
        source, geometry = self._source(tensor), Geometry.of(tensor)
        if source is None or source.geometry == geometry:
            return source
        if isinstance(source, Recomputed) and source.geometry.dtype == tensor.dtype:
            return View(source, geometry)
        return None

    def find_or_keep(
        self, tensor: Tensor, result: Tensor, *, instead: bool, unsaved: bool
    ) -> Source | None:
        """As :meth:`find`; a tensor that is small beside ``result`` is kept.

        Args:
            instead: whether tensors are kept instead of ``result``, as their bytes are the same.
            unsaved: whether autograd itself does not save ``tensor``. A buffer is then copied, as
                the next forward pass may change it before backward, and plain PyTorch allows it.
        """
        if self._copy_parameters and isinstance(tensor, torch.nn.Parameter):
            return SavedTensor(tensor.detach().clone(), self._outer)
        source = self.find(tensor)
        if source is None and _is_ordinary(tensor):
            # Another view of a kept tensor needs no further memory.
            is_kept = isinstance(self._source(tensor), SavedTensor)
            small = tensor.numel() * SMALL <= result.numel()
            whole = tensor.untyped_storage().nbytes() <= result.untyped_storage().nbytes()
            if unsaved and small and not is_kept and not tensor.requires_grad:
                return self._keep(tensor.detach().clone())
            if is_kept or ((small or instead) and whole):
                return self._keep(tensor.detach())
        return source

    def record(
        self, result: Tensor, compute: Compute, sources: Sequence[Source], *, is_join: bool
    ) -> None:
        """Says how ``result`` can be computed again.

        Args:
            is_join: whether it takes several large tensors to compute it.
        """
        joins = max(source.joins for source in sources) + is_join
        whole = result.untyped_storage().nbytes() == result.numel() * result.itemsize
        if joins <= _JOINS and whole and _is_ordinary(result):
            recipe = Recomputed(compute, sources, Geometry.of(result), joins, self.label)
            self._enter(result, recipe)

    def unpack(self, saved: SavedTensor | Use | Deferred) -> Tensor:
        """The tensor that autograd saved."""
        return saved.use()

    def saved(self, source: Recomputed, geometry: Geometry | None, tensor: Tensor) -> Use:
        """The object that autograd holds instead of ``tensor``."""
        return Use(source, geometry)

    def keeps(self, tensor: Tensor) -> None:
        """Called with each tensor that is kept."""

    def _source(self, tensor: Tensor) -> SavedTensor | Recomputed | None:
        """The source of the current values of the storage of ``tensor``."""
        entry = self._entries.get(tensor.untyped_storage()._cdata)
        return entry.source if entry and entry.version == tensor._version else None

    def _enter(self, tensor: Tensor, source: SavedTensor | Recomputed) -> None:
        storage = tensor.untyped_storage()
        self._entries[storage._cdata] = _Entry(StorageWeakRef(storage), tensor._version, source)

    def _keep(self, tensor: Tensor) -> SavedTensor:
        kept = SavedTensor(tensor, self._outer)
        self.keeps(tensor)
        if _is_ordinary(tensor) and self._source(tensor) is None:
            self._enter(tensor, kept)
        return kept

    def _pack(self, tensor: Tensor) -> SavedTensor | Use | Deferred:
        with torch._C.DisableTorchFunction():
            if self.is_over():
                return _used(SavedTensor(tensor, self._outer))
            if self._arguments is not None and _is_ordinary(tensor):
                place = tensor.untyped_storage()._cdata, tensor._version
                if place not in self._arguments:
                    self._deferred.append(Deferred(tensor))
                    return self._deferred[-1]
            return self._decide(tensor)

    def _decide(self, tensor: Tensor) -> SavedTensor | Use:
        if not _is_ordinary(tensor):
            return _used(self._keep(tensor))
        source, geometry = self._source(tensor) or self._copied(tensor), Geometry.of(tensor)
        if isinstance(source, Recomputed) and source.geometry.dtype == tensor.dtype:
            return self.saved(source, None if geometry == source.geometry else geometry, tensor)
        if isinstance(source, SavedTensor) and geometry == source.geometry:
            return _used(source)
        return _used(self._keep(tensor))

    def _copied(self, tensor: Tensor) -> Recomputed | None:
        """The source of a tensor that is overwritten, if ``tensor`` is a copy of it."""
        if self._original is None:
            return None
        original, storage = self._original
        same = original.geometry == Geometry.of(tensor)
        return original if same and tensor.untyped_storage()._cdata != storage else None


def _used(kept: SavedTensor) -> SavedTensor:
    kept.add_use()
    return kept


def _is_ordinary(tensor: Tensor) -> bool:
    """Whether storage, version and geometry say all about the values."""
    return (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_complex()
        and not tensor.is_inference()
    )
