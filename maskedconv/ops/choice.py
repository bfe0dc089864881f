"""Which backend of an operator runs: the one that is forced, or the first preferred that can."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

VARIABLE = "MASKEDCONV_BACKEND"
NAMES = ("reference", "native", "triton", "cuda")


def forced_backend() -> str:
    """The backend that MASKEDCONV_BACKEND names, or the empty string.

    Raises:
        ValueError: the variable names no backend.
    """
    name = os.environ.get(VARIABLE, "")
    if name and name not in NAMES:
        raise ValueError(f"{VARIABLE} is {name!r}; expected one of {', '.join(NAMES)}")
    return name


@dataclass(frozen=True)
class Choice:
    """What was chosen for one problem.

    Attributes:
        operator: "pack_filters" or "weight_grad".
        backend: the one that ran.
        forced: whether MASKEDCONV_BACKEND named it.
        refused: by backend that cannot run this problem, the reason why not.
    """

    operator: str
    backend: str
    forced: bool
    refused: Mapping[str, str]

    def __str__(self) -> str:
        why = f"forced by {VARIABLE}" if self.forced else "the first preferred that can run"
        lines = [f"{self.operator}: {self.backend} ({why})"]
        lines += [f"  not {name}: {reason}" for name, reason in self.refused.items()]
        return "\n".join(lines)


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


def backend_for(backends: Mapping[str, Any], problem: Any, preference: Sequence[str]) -> str:
    """The name of the backend that :func:`choose` would choose; errors as there."""
    forced = forced_backend()
    if not forced:
        return next(name for name in preference if not backends[name].cannot_run(problem))
    reason = "this operator has no such kernel"
    if forced in backends:
        reason = backends[forced].cannot_run(problem)
    if reason:
        raise RuntimeError(f"{VARIABLE} is {forced!r}, which cannot run: {reason}")
    return forced


def choose(
    operator: str, backends: Mapping[str, Any], problem: Any, preference: Sequence[str]
) -> str:
    """The name of the backend that is to compute ``problem``.

    Args:
        operator: its name, for :func:`recorded_choices`.
        backends: those of the operator, by name.
        preference: names from the fastest to one that takes every problem.

    Raises:
        ValueError: MASKEDCONV_BACKEND names no backend.
        RuntimeError: the backend that it names cannot run; the message says why.
    """
    chosen = backend_for(backends, problem, preference)
    if _recorders:
        reasons = {name: backend.cannot_run(problem) for name, backend in backends.items()}
        refused = {name: reason for name, reason in reasons.items() if reason}
        choice = Choice(operator, chosen, bool(forced_backend()), refused)
        for choices in _recorders:
            choices.append(choice)
    return chosen
