"""Decides which backend of an operator computes a problem, and why.

A backend that is named by the argument ``backend`` or by MASKEDCONV_BACKEND must run in every
operator that has it; it is an error if it cannot. An operator without a backend of that name uses
the reference. Without an override a kernel for the device runs, if there is one that takes the
problem: on the CPU the first of those registered, on CUDA the fastest when timed
(:mod:`maskedconv.ops.measured`). The reference runs everything else. Decisions are remembered for
each kind of problem.

A new backend of an operator is a module with ``DEVICES``, ``cannot_run`` and ``run`` in the
operator's folder, and a line in the operator's table ``BACKENDS``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, SupportsIndex, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from maskedconv.ops import measured
from maskedconv.ops.agreement import Compare, elementwise
from maskedconv.ops.plain import is_plain, resolved, why_not_plain
from maskedconv.ops.ranking_cache import Ranking

VARIABLE = "MASKEDCONV_BACKEND"
ARGUMENT = "the argument backend"
REFERENCE = "reference"
ANY = "any"  # as a problem's backend: nothing overrides the decision, MASKEDCONV_BACKEND included
_MOST_KINDS = 4096  # of problems that are remembered


class Problem(Protocol):
    """One call of an operator: a NamedTuple that starts with a tensor."""

    def __getitem__(self, index: SupportsIndex, /) -> Any:
        """The fields."""

    @property
    def backend(self) -> str:
        """The backend that must compute it; empty for none in particular."""

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors whose memory a kernel reads, at least one."""

    def kind(self) -> Hashable:
        """Everything that a decision may depend on."""


AnyProblem = TypeVar("AnyProblem", bound=Problem)


@dataclass(frozen=True)
class Operator:
    """An operator and its backends.

    Attributes:
        name: for :class:`Decision`.
        backends: modules with ``cannot_run(problem) -> reason`` and ``run(problem)`` by name.
            "reference" runs every problem. The others, kernels, also have ``DEVICES``, the types of
            device on which they run without being asked for, and ``DETERMINISTIC = True`` if they
            may run on CUDA under ``torch.use_deterministic_algorithms``. ``INSTEAD_OF`` is the name
            of an earlier kernel of the table: on CUDA they are tried only where that one cannot run
            or is wrong.
        run: computes a problem by a backend, to be compared and timed: all outputs, in memory of
            their own.
        reference_on_cpu: no kernel runs on the CPU without being asked for.
        timed_reference: the function that the caller runs if the reference is chosen, if it does
            more than the reference.
        timed_problem: gives the problem to time, if running the one at hand has effects.
        compare: how the outputs of a kernel are compared with the reference's.
    """

    name: str
    backends: Mapping[str, Any]
    run: Callable[[Any, Any], Any] = lambda backend, problem: backend.run(problem)
    timed_reference: Callable[[Any], Tensor] | None = None
    timed_problem: Callable[[Any], Any] | None = None
    compare: Compare = elementwise
    reference_on_cpu: bool = field(init=False)

    def __post_init__(self) -> None:
        only_reference = not self.kernels_for(torch.device("cpu"))
        object.__setattr__(self, "reference_on_cpu", only_reference)
        _operators[self.name] = self

    def kernels_for(self, device: torch.device) -> dict[str, Any]:
        """The kernels that run on ``device`` without being asked for."""
        kernels = {name: b for name, b in self.backends.items() if name != REFERENCE}
        return {name: kernel for name, kernel in kernels.items() if device.type in kernel.DEVICES}


@dataclass(frozen=True)
class Decision:
    """The backend of one problem.

    Attributes:
        operator: its name, such as "weight_grad".
        backend: the one that ran.
        reason: why that one.
        refused: the reasons why others cannot run this problem, by backend.
    """

    operator: str
    backend: str
    reason: str
    refused: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{self.operator}: {self.backend} ({self.reason})"]
        lines += [f"  not {name}: {reason}" for name, reason in self.refused.items()]
        return "\n".join(lines)


class _Found(NamedTuple):
    backend: str
    reason: str
    lasting: bool = True


# The dict of os.environ: os.environ.get raises and catches two exceptions for a name that is not
# set, and takes 0.4 µs instead of 0.01.
_VARIABLES: Mapping[Any, Any] = os.environ._data  # type: ignore[attr-defined]
_KEY = os.environ.encodekey(VARIABLE)

_operators: dict[str, Operator] = {}
_memo: dict[Hashable, _Found] = {}
_recorders: list[list[Decision]] = []


def dispatch(
    operator: Operator, problem: AnyProblem, recorded: bool = True, only_kernels: bool = False
) -> tuple[Any, AnyProblem]:
    """The backend that must compute ``problem``, and the problem as that backend takes it.

    Args:
        recorded: the backend will run, so :func:`recorded_decisions` must tell.
        only_kernels: it will run unless it is the reference.

    Raises:
        ValueError: MASKEDCONV_BACKEND names no backend.
        RuntimeError: the backend that it or the problem names cannot run; the message says why.
    """
    backend, recorded = problem.backend, recorded and bool(_recorders)
    if operator.reference_on_cpu and backend == ANY and problem[0].is_cpu and not recorded:
        return operator.backends[REFERENCE], problem
    override = "" if backend == ANY else override_of(backend)
    unreadable = ""
    if not all(map(is_plain, problem.tensors())):
        problem = tree_map_only(Tensor, resolved, problem, is_leaf=_is_shape)
        unreadable = why_not_plain(problem.tensors())
    if unreadable:
        found = _decide(operator, problem, override, unreadable)
    else:
        kind = (operator.name, backend, override, problem.kind())
        found = _memo.get(kind) or _remember(kind, _decide(operator, problem, override, ""))
    if recorded and not (only_kernels and found.backend == REFERENCE):
        backends = {} if unreadable else operator.backends
        reasons = {name: each.cannot_run(problem) for name, each in backends.items()}
        refused = {name: reason for name, reason in reasons.items() if reason}
        record(Decision(operator.name, *found[:2], refused))
    return operator.backends[found.backend], problem


def _is_shape(part: Any) -> bool:
    """Whether it is a shape, of which tree_map would make a tuple."""
    return isinstance(part, torch.Size)


def chosen_backend(operator: Operator, problem: Problem) -> Any:
    """The backend that :func:`dispatch` would give; nothing is recorded.

    Raises:
        ValueError, RuntimeError: as :func:`dispatch`.
    """
    return dispatch(operator, problem, recorded=False)[0]


def _remember(kind: Hashable, found: _Found) -> _Found:
    if found.lasting:
        if len(_memo) >= _MOST_KINDS:
            _memo.clear()
        _memo[kind] = found
    return found


def _decide(operator: Operator, problem: Problem, override: str, unreadable: str) -> _Found:
    if override:
        return _overridden(operator, problem, override, unreadable)
    if unreadable:
        return _Found(REFERENCE, unreadable)
    device = problem.tensors()[0].device
    kernels = operator.kernels_for(device)
    if not kernels:
        return _Found(REFERENCE, f"no kernel is preferred to PyTorch's operators on {device.type}")
    ranking = Ranking((*kernels, REFERENCE), "the first that can run")
    if device.type == "cuda":
        backends = {REFERENCE: operator.backends[REFERENCE], **kernels}
        ranking = measured.ranking(operator, backends, problem)
    able = (name for name in ranking.names if not operator.backends[name].cannot_run(problem))
    return _Found(next(able), ranking.reason, ranking is not measured.UNMEASURED)


def _overridden(operator: Operator, problem: Problem, override: str, unreadable: str) -> _Found:
    source = ARGUMENT if problem.backend else VARIABLE
    if override not in backend_names():
        raise ValueError(f"{source} is {override!r}; expected one of {', '.join(backend_names())}")
    if override not in operator.backends:
        return _Found(REFERENCE, f"{override} has no kernel for it")
    if override == REFERENCE:
        return _Found(REFERENCE, unreadable or f"forced by {source}")
    reason = unreadable or operator.backends[override].cannot_run(problem)
    if reason:
        raise RuntimeError(f"{source} is {override!r}, which cannot run: {reason}")
    return _Found(override, f"forced by {source}")


def override_of(argument: str) -> str:
    """The backend that must run: the argument, else what MASKEDCONV_BACKEND says, else empty.

    Operators look it up when they run. So torch.compile need not trace how.
    """
    if argument or torch.compiler.is_compiling():
        return argument
    return os.environ[VARIABLE] if _KEY in _VARIABLES else ""


def backend_or_any(argument: str) -> str:
    """The argument, or :data:`ANY` if nothing overrides the decision.

    So that a layer's forward and backward pass look up MASKEDCONV_BACKEND once.
    """
    compiling = torch.compiler.is_compiling()
    return argument if argument or compiling or _KEY in _VARIABLES else ANY


def backend_names() -> tuple[str, ...]:
    """The names of all backends of all operators."""
    return tuple(dict.fromkeys(name for op in _operators.values() for name in op.backends))


def check_backend(name: str | None) -> str:
    """Returns ``name``, or the empty string for None.

    Raises:
        ValueError: there is no such backend.
    """
    if name and name not in backend_names():
        names = ", ".join(backend_names())
        raise ValueError(f"backend is {name!r}; expected None or one of {names}")
    return name or ""


def forget_decisions() -> None:
    """Has every problem decided anew, as after a backend was replaced."""
    _memo.clear()


@contextmanager
def recorded_decisions() -> Iterator[list[Decision]]:
    """Adds the decision of every operator that this process runs to the list that it gives."""
    decisions: list[Decision] = []
    _recorders.append(decisions)
    try:
        yield decisions
    finally:
        _recorders[:] = [other for other in _recorders if other is not decisions]


def record(decision: Decision) -> None:
    """Adds ``decision`` to the lists of :func:`recorded_decisions`."""
    for decisions in _recorders:
        decisions.append(decision)
