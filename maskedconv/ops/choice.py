"""Which backend of an operator runs: the one that is forced, or the first of a ranking that can."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from maskedconv.ops.plain import why_not_plain

VARIABLE = "MASKEDCONV_BACKEND"
ARGUMENT = "the argument backend"
NAMES = ("reference", "native", "triton", "cuda")


class Ranking(NamedTuple):
    """Backends from the fastest to one that takes every problem, and what that order is from."""

    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Choice:
    """What was chosen for one problem.

    Attributes:
        operator: "pack_filters" or "weight_grad".
        backend: the one that ran.
        reason: why that one.
        refused: by backend that cannot run this problem, the reason why not.
    """

    operator: str
    backend: str
    reason: str
    refused: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{self.operator}: {self.backend} ({self.reason})"]
        lines += [f"  not {name}: {reason}" for name, reason in self.refused.items()]
        return "\n".join(lines)


# Of os.environ, whose own test raises and catches two exceptions for a name that it does not have:
# too slow for every forward pass.
_VARIABLES: Mapping[Any, Any] = os.environ._data  # type: ignore[attr-defined]
_KEY = os.environ.encodekey(VARIABLE)

_recorders: list[list[Choice]] = []


@contextmanager
def recorded_choices() -> Iterator[list[Choice]]:
    """Within, every choice that this process makes is added to the list that it gives."""
    choices: list[Choice] = []
    _recorders.append(choices)
    try:
        yield choices
    finally:
        _recorders[:] = [other for other in _recorders if other is not choices]


def is_recording() -> bool:
    """Whether someone listens to the choices."""
    return bool(_recorders)


def record(choice: Choice) -> None:
    """Adds ``choice`` to the lists of :func:`recorded_choices`."""
    for choices in _recorders:
        choices.append(choice)


def check_backend(name: str | None) -> str:
    """The name as it is, or the empty string for None.

    Raises:
        ValueError: there is no such backend.
    """
    if name and name not in NAMES:
        raise ValueError(f"backend is {name!r}; expected None or one of {', '.join(NAMES)}")
    return name or ""


def forced_backend(argument: str) -> str:
    """The backend that must run: of the argument, else of MASKEDCONV_BACKEND, else empty.

    Raises:
        ValueError: the variable names no backend.
    """
    name = argument or (os.environ[VARIABLE] if _KEY in _VARIABLES else "")
    if name and name not in NAMES:
        raise ValueError(f"{VARIABLE} is {name!r}; expected one of {', '.join(NAMES)}")
    return name


def is_free(argument: str) -> bool:
    """Whether nothing forces a backend and nothing is compiled.

    An operator may then go straight to what :func:`choose` would come to, and says so by
    :func:`record_chosen` where someone listens.
    """
    return not (torch.compiler.is_compiling() or argument or _KEY in _VARIABLES)


def backend_for(
    backends: Mapping[str, Any], problem: Any, rank: Callable[[Any], Ranking]
) -> tuple[str, str]:
    """The name of the backend that :func:`choose` would choose, and why; errors as there."""
    forced = forced_backend(problem.backend)
    not_plain = why_not_plain(problem.tensors())
    if not_plain and forced in ("", "reference"):
        return "reference", not_plain
    if not forced:
        ranking = rank(problem)
        able = (name for name in ranking.names if not backends[name].cannot_run(problem))
        return next(able), ranking.reason
    source = ARGUMENT if problem.backend else VARIABLE
    reason = "this operator has no such kernel"
    if forced in backends:
        reason = not_plain or backends[forced].cannot_run(problem)
    if reason:
        raise RuntimeError(f"{source} is {forced!r}, which cannot run: {reason}")
    return forced, f"forced by {source}"


def choose(
    operator: str, backends: Mapping[str, Any], problem: Any, rank: Callable[[Any], Ranking]
) -> str:
    """The name of the backend that is to compute ``problem``.

    Args:
        operator: its name, for :func:`recorded_choices`.
        backends: those of the operator, by name.
        problem: with the attribute ``backend``, the one that must compute it or empty, and the
            method ``tensors``, what a kernel would read.
        rank: gives the order in which to try them; asked only where no backend is forced.

    Raises:
        ValueError: MASKEDCONV_BACKEND names no backend.
        RuntimeError: the backend that is forced cannot run; the message says why.
    """
    chosen, why = backend_for(backends, problem, rank)
    if _recorders:
        record_chosen(operator, backends, problem, chosen, why)
    return chosen


def record_chosen(
    operator: str, backends: Mapping[str, Any], problem: Any, chosen: str, why: str
) -> None:
    """Records that ``chosen`` computes ``problem``, with the reason why each other cannot."""
    reasons = {}
    if not why_not_plain(problem.tensors()):  # which says it of all kernels
        reasons = {name: backend.cannot_run(problem) for name, backend in backends.items()}
    refused = {name: reason for name, reason in reasons.items() if reason}
    record(Choice(operator, chosen, why, refused))
