"""Runs one case: the package against plain PyTorch modules, in its precision and in float64."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.fuzz.cases import Case
from tests.fuzz.compare import compare_errors, differences
from tests.fuzz.modules import plain_of, start
from tests.fuzz.results import Results, attempt
from tests.fuzz.tensors import dtype_of
from tests.support.free_memory import fill_free_memory

# Inputs one rounding off, with which the plain modules of a network run as well.
PERTURBATIONS = 16
MOVED = 4 * torch.finfo(torch.float32).eps


def check(case: Case) -> str:
    """The fault, or empty if the package agrees with plain modules and repeats bit for bit."""
    module, values = start(case)
    plain = plain_of(case, module).to(memory_format=torch.contiguous_format)
    exact = copy.deepcopy(plain).double()
    expected = attempt(case, exact, values.double(), "contiguous")
    theirs = attempt(case, plain, values, "contiguous")
    ours, again = _twice(case, module, values, case.layout)
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        return compare_errors(ours, theirs)
    assert not isinstance(expected, Exception)
    assert not isinstance(again, Exception)
    problems = dict(differences(case, ours, again, theirs, expected))
    if case.kind == "network" and problems:
        for once, _ in _other_plain_networks(case, module, values):
            if not isinstance(once, Exception):
                # A flipped ReLU excuses an error of its own size, and no larger one.
                found = dict(differences(case, ours, again, once, expected))
                problems = {name: told for name, told in problems.items() if name in found}
    elif problems:
        for name in _wrong_in_plain_modules(case, module, values, theirs, expected):
            problems.pop(name, None)
    return next((f"{name}: {problem}" for name, problem in problems.items()), "")


def _twice(case: Case, module: nn.Module, values: Tensor, layout: str) -> list[Results | Exception]:
    with _poisoned(case.poisoned):
        return [attempt(case, copy.deepcopy(module), values, layout) for _ in range(2)]


def _wrong_in_plain_modules(
    case: Case, module: nn.Module, values: Tensor, theirs: Results, expected: Results
) -> set[str]:
    """The tensors that plain modules get as wrong, in another memory format or with another mean.

    PyTorch's convolutions have faults of their own in channels_last, which a layer shares with
    nn.Conv2d. A rounding of float32 may open a ReLU if an input of 16 bits equals the running mean.
    """
    others = _plain_in_channels_last(case, module, values)
    if case.kind == "fused":
        others = itertools.chain(others, _exact_with_moved_mean(case, module, values))
    wrong: set[str] = set()
    for once, again in others:
        if not isinstance(once, Exception) and not isinstance(again, Exception):
            wrong |= {name for name, _ in differences(case, once, again, theirs, expected)}
    return wrong


def _other_plain_networks(
    case: Case, module: nn.Module, values: Tensor
) -> Iterator[list[Results | Exception]]:
    """In another memory format, or one rounding off, which may open a ReLU as ours may."""
    yield from _plain_in_channels_last(case, module, values)
    for _ in range(PERTURBATIONS):
        moved = values.to(dtype_of(case))
        moved = moved * (1 + torch.randn_like(moved) * torch.finfo(moved.dtype).eps)
        yield _twice(case, plain_of(case, module), moved, "contiguous")


def _exact_with_moved_mean(
    case: Case, module: nn.Module, values: Tensor
) -> Iterator[list[Results | Exception]]:
    """Plain modules in float64, with running means off by some roundings of float32."""
    for _ in range(PERTURBATIONS):
        plain = plain_of(case, module).double()
        for norm in plain.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
                step = torch.randn_like(norm.running_mean) * MOVED
                norm.running_mean.mul_(1 + step)
        yield _twice(case, plain, values.double(), "contiguous")


def _plain_in_channels_last(
    case: Case, module: nn.Module, values: Tensor
) -> Iterator[list[Results | Exception]]:
    if case.kernel == (1, 1) and case.stride != (1, 1):
        # oneDNN's weight gradient writes out of bounds for these.
        case = replace(case, needs=(case.needs[0], False, case.needs[2]))
    for filters in (torch.contiguous_format, torch.channels_last):
        for layout in ("contiguous", "channels_last", case.layout):
            plain = plain_of(case, module).to(memory_format=filters)
            fill_free_memory()
            yield _twice(case, plain, values, layout)


def run_plain_in_channels_last(case: Case) -> None:
    """Runs only plain modules, to see whether they end the process as well."""
    module, values = start(case)
    for _ in _plain_in_channels_last(case, module, values):
        pass


@contextmanager
def _poisoned(enabled: bool) -> Iterator[None]:
    """PyTorch fills new memory with NaN."""
    torch.use_deterministic_algorithms(enabled)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
