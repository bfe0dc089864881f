"""Ranks the backends of an operator on CUDA by timing them once for each kind of problem.

The result of each backend is compared with the reference before it is timed, so that a wrong kernel
is reported and excluded. Rankings are also cached on disk (:mod:`maskedconv.ops.ranking_cache`),
unless a kernel was wrong.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from maskedconv.ops.kinds import ALIGNMENT
from maskedconv.ops.ranking_cache import Ranking, cache_for
from maskedconv.ops.timing import CudaQueue, queued_times

REPETITIONS = 7  # odd: one of them is the median
# Tolerances relative to the largest value: half precision and TF32, summed in another order.
TOLERANCE = 0.02
UNMEASURED = Ranking(("reference",), "PyTorch's own, as nothing can be timed here")
Run = Callable[[Any], Tensor]


def ranking(
    operator: str, backends: Mapping[str, Any], problem: Any, otherwise: Run | None = None
) -> Ranking:
    """Backends that can compute ``problem`` on its CUDA device, the fastest first.

    Backends are timed once for each kind of problem. Under ``torch.use_deterministic_algorithms``
    nothing is timed: the kernels that are ``DETERMINISTIC`` come in the order of the table, then
    the reference. Only the reference is returned during the capture of a CUDA graph if the kind was
    not timed before.

    Args:
        problem: a :class:`maskedconv.ops.dispatch.Problem`.
        otherwise: the caller's substitute for the reference, timed in its place.

    Returns:
        The ranking; :data:`UNMEASURED` holds for this call only.
    """
    device = problem.tensors()[0].device
    queue = CudaQueue(device)
    if queue.is_capturing():
        return UNMEASURED
    if torch.are_deterministic_algorithms_enabled():
        return _fixed(operator, backends, problem)
    cache = cache_for(device)
    # The index of a device differs between processes.
    key = repr((operator, problem.kind())).replace(f"{device!r}, ", "")
    with cache.locked():
        found = cache.find(key, backends)
        if found is None:
            found, faults = _measure(operator, backends, problem, otherwise, queue)
            reason = "" if faults else cache.add(key, found)
            if reason:
                found = found._replace(reason=f"{found.reason}; not cached on disk: {reason}")
    return found


def _fixed(operator: str, backends: Mapping[str, Any], problem: Any) -> Ranking:
    """The ranking that does not depend on timings; kernels that are wrong are left out."""
    kernels = {
        name: backend
        for name, backend in backends.items()
        if getattr(backend, "DETERMINISTIC", False) and not backend.cannot_run(problem)
    }
    if not kernels:
        return Ranking(("reference",), "no other is known to be deterministic")
    problem, expected = _telling(backends["reference"], problem)
    sound = [
        name
        for name, backend in kernels.items()
        if not _try(operator, name, backend, problem, expected, None)[0]
    ]
    return Ranking((*sound, "reference"), "the first that is deterministic, untimed")


def _measure(
    operator: str,
    backends: Mapping[str, Any],
    problem: Any,
    otherwise: Run | None,
    queue: CudaQueue,
) -> tuple[Ranking, list[str]]:
    """The ranking, and the faults of the excluded kernels."""
    problem, expected = _telling(backends["reference"], problem)
    milliseconds = {"reference": _time(otherwise or backends["reference"].run, problem, queue)}
    faults = []
    for name, backend in backends.items():
        if name == "reference" or backend.cannot_run(problem):
            continue
        fault, time = _try(operator, name, backend, problem, expected, queue)
        if fault:
            faults.append(fault)
        else:
            milliseconds[name] = time
    names = tuple(sorted(milliseconds, key=lambda name: milliseconds[name]))
    times = ", ".join(f"{name} {milliseconds[name]:.3f} ms" for name in names)
    return Ranking(names, f"the fastest when timed: {times}"), faults


def _try(
    operator: str,
    name: str,
    backend: Any,
    problem: Any,
    expected: Tensor,
    queue: CudaQueue | None,
) -> tuple[str, float]:
    """The fault of a kernel, which is also warned of, or an empty string; its time if ``queue``."""
    milliseconds = 0.0
    try:
        fault = _fault(backend.run(problem), expected)
        if queue is not None and not fault:
            milliseconds = _time(backend.run, problem, queue)
    except Exception as error:  # no error of a kernel may stop a training run
        fault = f"raised {type(error).__name__}: {error}"
    if fault:
        warnings.warn(
            f"{operator}: the {name} kernel {fault}; it is not used for this shape. "
            "Please report this with the output of `python -m maskedconv.env`.",
            stacklevel=2,
        )
    return fault, milliseconds


def _telling(reference: Any, problem: Any) -> tuple[Any, Tensor]:
    """A problem of the same kind that can expose a wrong kernel, and its result.

    This is the problem itself, unless its result is zero (the gradient of a block that ends in a γ
    of 0) or not finite (the first steps under a loss scale). Then it is one with random values.
    """
    expected = reference.run(problem)
    largest = expected.abs().max() if expected.numel() else torch.zeros(())
    if bool((largest > 0) & largest.isfinite()):  # a NaN is the largest value
        return problem, expected
    tensors = [_random_like(value) if isinstance(value, Tensor) else value for value in problem]
    problem = type(problem)(*tensors)
    return problem, reference.run(problem)


def _random_like(tensor: Tensor) -> Tensor:
    """Normal values with the same strides and alignment; leaves PyTorch's generators unchanged."""
    if not tensor.numel():
        return tensor
    first = tensor.data_ptr() % ALIGNMENT // tensor.element_size()
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    values = torch.empty(first + span, dtype=tensor.dtype, device=tensor.device)
    values.normal_(generator=torch.Generator(tensor.device).manual_seed(0))
    return values.as_strided(tensor.shape, tensor.stride(), first)


def _fault(result: Tensor, expected: Tensor) -> str:
    """A description of the fault, or empty if the result is as expected except for rounding."""
    if result.shape != expected.shape:
        return f"gives the shape {tuple(result.shape)}, not {tuple(expected.shape)}"
    if not expected.numel():
        return ""
    result, expected = result.double(), expected.double()
    error, scale = float((result - expected).abs().max()), float(expected.abs().max())
    # Written so that a NaN is a fault.
    if error <= TOLERANCE * scale:
        return ""
    return f"is off by {error:.3g} where values reach {scale:.3g}"


def _time(run: Run, problem: Any, queue: CudaQueue) -> float:
    """Median milliseconds."""
    times = sorted(queued_times(lambda: run(problem), queue, REPETITIONS).milliseconds)
    return times[len(times) // 2]
