"""Compares the package's results with those of plain modules; a fault is far beyond rounding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tests.fuzz.cases import Case
from tests.fuzz.results import Results
from tests.fuzz.tensors import dtype_of, same_bits
from tests.support.precision import largest_error, rms_error

# A fault is an error far beyond that of plain modules; rounding errors are smaller.
FACTOR = 8
ROUNDINGS = 64
CANCELLED = 1e-5


def compare_errors(ours: object, theirs: object) -> str:
    """The fault if an error was raised by one of the two only, or empty."""
    if not isinstance(ours, Exception):
        return f"plain modules raise {type(theirs).__name__}: {theirs}; the package does not"
    if "cannot run" in str(ours):
        return ""  # the backend that the case asks for does not take it, and says so
    if not isinstance(theirs, Exception):
        return f"the package raises {type(ours).__name__}: {ours}; plain modules do not"
    return ""


def differences(
    case: Case, ours: Results, again: Results, theirs: Results, exact: Results
) -> Iterator[tuple[str, str]]:
    """The wrong tensors and their errors."""
    measure = rms_error if case.kind == "network" else largest_error
    eps = torch.finfo(torch.bfloat16 if case.autocast else dtype_of(case)).eps
    for name, expected in exact.items():
        value, plain = ours[name], theirs[name]
        if expected is None or value is None or plain is None:
            if (value is None) != (plain is None):
                yield name, f"ours is {_kind(value)}, plain is {_kind(plain)}"
            continue
        if value.shape != expected.shape:
            yield name, f"shape {tuple(value.shape)}, expected {tuple(expected.shape)}"
            continue
        second = again[name]
        if second is None or not same_bits(value.detach(), second.detach()):
            yield name, "two runs differ"
        finite, problem = _finite(name, value, plain, expected, case)
        if problem:
            yield name, problem
            continue
        if case.kind == "network" and _cancelled(expected, exact):
            continue
        parts = [t.detach().double()[finite] for t in (value, plain, expected)]
        error, allowed = (measure(part, parts[2]) for part in parts[:2])
        if not error <= FACTOR * allowed + ROUNDINGS * eps:
            yield name, f"error {error:.3g}, plain modules {allowed:.3g}"


def _cancelled(expected: Tensor, exact: Results) -> bool:
    """Whether a gradient is a sum of terms that cancel, such as that of filters before a norm.

    Its rounding is that of the terms, which are as large as other gradients of the network.
    """
    largest = max(
        float(t.detach().abs().max()) for t in exact.values() if t is not None and t.numel()
    )
    return bool(expected.detach().abs().max() < CANCELLED * largest)


def _kind(value: Tensor | None) -> str:
    return "None" if value is None else "a tensor"


def _finite(
    name: str, value: Tensor, plain: Tensor, exact: Tensor, case: Case
) -> tuple[Tensor, str]:
    """The elements to compare; a problem if others are finite than in plain modules.

    Plain modules in two precisions may differ: their algorithms multiply the padding or do not.
    Zeroed filters are not computed; plain modules multiply their zeros with NaN and infinities.
    A slice of kernel rows or columns is a shorter kernel; its larger output is filled with zeros.
    Beside zeroed filters, the learned ones are a smaller convolution, with another algorithm.
    A gradient that is not finite may meet padding, which the kernels leave out of the weight's.
    """
    ours, low, high = (t.detach().isfinite() for t in (value, plain, exact))
    padded = name.endswith("weight") and case.special.endswith("gradient")
    if case.frozen != "zero" and not padded and bool((ours & ~low & ~high).any()):
        return ours, "finite where plain modules are not"
    smaller = case.slice_dim >= 2 or case.frozen == "zero"
    if not smaller and bool((~ours & low & high).any()):
        return ours, "not finite where plain modules are"
    return ours & low & high, ""
