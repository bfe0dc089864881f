"""A session that compares each recomputed tensor with the one of the forward pass."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from maskedconv.fusion.operators import NORMS, OPERATORS
from maskedconv.fusion.session import Session
from maskedconv.fusion.sources import Deferred, Geometry, Recomputed, SavedTensor, Use

# Times the unit roundoff of the type, of the largest magnitude: on the CPU the bits are the same.
_TOLERANCE = 16


class _CheckedUse(Use):
    """A use with the tensor that it stands for."""

    def __init__(self, source: Recomputed, geometry: Geometry | None, tensor: Tensor) -> None:
        super().__init__(source, geometry)
        self.expected = tensor.detach().clone()


class CheckingSession(Session):
    """Keeps every tensor, and computes again what :class:`Session` would.

    Args:
        model: the model that runs.
        blocked: names of modules in which nothing is to be recorded.

    Attributes:
        wrong: modules that computed results that differ when they are computed again.
        called: modules that called functions of PyTorch.
        norms: for each module that called a norm of PyTorch, whether its result was recorded.
        kept: bytes that are kept for backward, apart from the model's own, by module.
    """

    def __init__(self, model: nn.Module, blocked: frozenset[str]) -> None:
        super().__init__(OPERATORS)
        self.wrong: set[str] = set()
        self.norms: dict[str, bool] = {}
        self.called: set[str] = set()
        self.kept: Counter[str] = Counter()
        self._names = {id(module): name for name, module in model.named_modules()}
        self._known = {storage_of(one) for one in [*model.parameters(), *model.buffers()]}
        self._blocked = blocked

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if torch.compiler.is_compiling():
            return func(*args, **(kwargs or {}))
        self.label = self._running()
        self.called.add(self.label)
        self.paused = is_within(self.label, self._blocked)
        result = super().__torch_function__(func, types, args, kwargs)
        if func in NORMS:
            self.norms[self.label] = isinstance(self.find(result), Recomputed)
        return result

    def around(self, model: nn.Module) -> Callable[..., Any]:
        """Runs the model within this session."""

        def run(*inputs: Any) -> Any:
            with self:
                return model(*inputs)

        return run

    def saved(self, source: Recomputed, geometry: Geometry | None, tensor: Tensor) -> Use:
        return _CheckedUse(source, geometry, tensor)

    def keeps(self, tensor: Tensor) -> None:
        if storage_of(tensor) not in self._known:
            self._known.add(storage_of(tensor))
            self.kept[self._running()] += tensor.untyped_storage().nbytes()

    def unpack(self, saved: SavedTensor | Use | Deferred) -> Tensor:
        use = saved.decided() if isinstance(saved, Deferred) else saved
        if not isinstance(use, _CheckedUse):
            return use.use()
        try:
            right = is_close(use.use(), use.expected)
        except RuntimeError:
            # A source was changed in place.
            right = False
        if not right:
            self.wrong |= use.source.labels()
        return use.expected

    def _running(self) -> str:
        """The name of the innermost module whose method runs."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            name = self._names.get(id(frame.f_locals.get("self")))
            if name is not None:
                return name
            frame = frame.f_back
        return ""


def storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def is_within(name: str, modules: frozenset[str]) -> bool:
    """Whether the module ``name`` is one of ``modules`` or inside of one."""
    return any(name == one or not one or name.startswith(f"{one}.") for one in modules)


def is_close(value: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal except for the order of sums in a parallel reduction."""
    if torch.equal(value, expected):
        return True
    bound = _TOLERANCE * torch.finfo(expected.dtype).eps * expected.abs().amax()
    # Written so that NaN is not close.
    return bool(((value - expected).abs() <= bound).all())
