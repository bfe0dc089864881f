"""Hooks of a model that run its forward pass within a session."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn

from maskedconv.fusion.operators import OPERATORS
from maskedconv.fusion.session import Session
from maskedconv.fusion.unwinding import is_running
from maskedconv.nn.own_hooks import remove_hooks
from maskedconv.tracing import is_traced


class _Pass(NamedTuple):
    """A forward pass, and the frame of its call.

    ``session`` is None if it runs as the plain model.
    """

    module: nn.Module
    session: Session | None
    frame: FrameType


class _Passes(threading.local):
    """The forward passes of models with these hooks that run in a thread, the innermost last."""

    def __init__(self) -> None:
        self.running: list[_Pass] = []

    def drop_ended(self) -> None:
        """Ends the sessions of passes that ended without :func:`end`."""
        while self.running and not is_running(self.running[-1].frame):
            session = self.running.pop().session
            if session:
                session.abandon()


_PASSES = _Passes()


def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
    """A hook before the forward pass."""
    if torch.compiler.is_compiling():
        return
    _PASSES.drop_ended()
    session, frame = None, sys._getframe(1)
    if _keeps(args):
        session = Session(OPERATORS, copy_parameters=_is_sharded(module), frame=frame)
        session.__enter__()
    _PASSES.running.append(_Pass(module, session, frame))


def end(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
    """A hook after the forward pass, also after one that raised an ``Exception``."""
    if torch.compiler.is_compiling():
        return
    _PASSES.drop_ended()
    running = _PASSES.running
    if not running or running[-1].module is not module:
        return
    session = running.pop().session
    if session:
        session.__exit__(None, None, None)


class Pause:
    """Before and after a module in which nothing is recorded.

    Args:
        step: 1 before and -1 after the module.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, module: nn.Module, *args: Any) -> None:
        session = _session()
        if session and not torch.compiler.is_compiling():
            session.paused += self.step


def attach(model: nn.Module, paused: Iterable[str]) -> None:
    """Runs the model's forward pass within a session, except in the modules ``paused``."""
    model.register_forward_pre_hook(begin, prepend=True)
    model.register_forward_hook(end, prepend=True, always_call=True)
    for name in paused:
        module = model.get_submodule(name)
        module.register_forward_pre_hook(Pause(1), prepend=True)
        module.register_forward_hook(Pause(-1), prepend=True, always_call=True)


def detach(model: nn.Module) -> None:
    """Removes the hooks of :func:`attach`."""
    _PASSES.drop_ended()
    remove_hooks(model, _is_own)


def _is_own(hook: Any) -> bool:
    return hook is begin or hook is end or isinstance(hook, Pause)


def _session() -> Session | None:
    return next((one.session for one in reversed(_PASSES.running) if one.session), None)


def _is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 shards parameters of ``model``."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and any(isinstance(one, fsdp.FSDPModule) for one in model.modules())


def _keeps(args: tuple[Any, ...]) -> bool:
    """Whether autograd keeps tensors, and lets this package decide which."""
    return (
        torch.is_grad_enabled()
        and not is_traced(next(iter(args), None))
        and _session() is None
        # They are off within torch.func's transforms.
        and torch._C._autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]
    )
