"""Which backend of an operator runs: the one that is forced, or the first preferred that can."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor

VARIABLE = "MASKEDCONV_BACKEND"
NAMES = ("reference", "native", "triton", "cuda")

Problem = TypeVar("Problem", contravariant=True)


class Backend(Protocol[Problem]):
    """A module (or object) that computes an operator's problems in one way."""

    def cannot_run(self, problem: Problem) -> str:
        """Empty when it takes ``problem``, else the reason why not."""

    def run(self, problem: Problem) -> Tensor:
        """The operator's result."""


def forced_backend() -> str:
    """The backend that MASKEDCONV_BACKEND names, or the empty string.

    Raises:
        ValueError: the variable names no backend.
    """
    name = os.environ.get(VARIABLE, "")
    if name and name not in NAMES:
        raise ValueError(f"{VARIABLE} is {name!r}; expected one of {', '.join(NAMES)}")
    return name


def choose(backends: Mapping[str, Any], problem: Any, preference: Sequence[str]) -> str:
    """The name of the backend that computes ``problem``.

    Args:
        backends: those of the operator, by name.
        preference: names from the fastest to one that takes every problem.

    Raises:
        ValueError: MASKEDCONV_BACKEND names no backend.
        RuntimeError: the backend that it names cannot run; the message says why.
    """
    forced = forced_backend()
    if not forced:
        return next(name for name in preference if not backends[name].cannot_run(problem))
    reason = "this operator has no such kernel"
    if forced in backends:
        reason = backends[forced].cannot_run(problem)
    if reason:
        raise RuntimeError(f"{VARIABLE} is {forced!r}, which cannot run: {reason}")
    return forced
