"""The order of an operator's backends on CUDA: timed once for each kind of problem, and kept.

Before a backend is timed its result is held against the reference's, so that a kernel that is wrong
on some GPU is reported and left out rather than fast.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from maskedconv.ops.choice import Ranking

WARM_UP, REPETITIONS = 2, 7
# Of the largest value: sums of products of half precision or TF32 in another order.
TOLERANCE = 0.02
UNMEASURED = Ranking(("reference",), "PyTorch's own, as nothing can be timed here")

_rankings: dict[Hashable, Ranking] = {}


def ranking(operator: str, backends: Mapping[str, Any], problem: Any) -> Ranking:
    """Backends that can compute ``problem`` on its CUDA device, the fastest first.

    Timed at the first problem of its kind (device, types, shapes, strides, geometry) in this
    process. PyTorch's own operators alone, untimed, where a result must not depend on timings
    (``torch.use_deterministic_algorithms``), and in the capture of a CUDA graph for kinds that were
    not timed before it.
    """
    if torch.are_deterministic_algorithms_enabled():
        return UNMEASURED
    kind = (operator, *(_kind(value) for value in problem))
    if kind not in _rankings:
        if torch.cuda.is_current_stream_capturing():
            return UNMEASURED
        _rankings[kind] = _measure(operator, backends, problem)
    return _rankings[kind]


def _kind(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return value.device, value.dtype, value.shape, value.stride()
    return value


def _measure(operator: str, backends: Mapping[str, Any], problem: Any) -> Ranking:
    expected = backends["reference"].run(problem)
    milliseconds = {"reference": _time(backends["reference"], problem)}
    for name, backend in backends.items():
        if name == "reference" or backend.cannot_run(problem):
            continue
        try:
            fault = _fault(backend.run(problem), expected)
            milliseconds |= {} if fault else {name: _time(backend, problem)}
        except Exception as error:  # whatever stops a kernel must not stop a training run
            fault = f"raised {type(error).__name__}: {error}"
        if fault:
            warnings.warn(
                f"{operator}: the {name} kernel {fault}; it is not used for this shape. "
                "Please report this with the output of `python -m maskedconv.env`.",
                stacklevel=2,
            )
    names = tuple(sorted(milliseconds, key=lambda name: milliseconds[name]))
    times = ", ".join(f"{name} {milliseconds[name]:.3f} ms" for name in names)
    return Ranking(names, f"the fastest when timed: {times}")


def _fault(result: Tensor, expected: Tensor) -> str:
    """Empty when the result is the expected one but for rounding."""
    result, expected = result.double(), expected.double()
    if not bool(expected.isfinite().all()):
        return ""
    error, scale = float((result - expected).abs().max()), float(expected.abs().max())
    # Written so that a NaN is a fault.
    if error <= TOLERANCE * scale:
        return ""
    return f"is off by {error:.3g} where values reach {scale:.3g}"


def _time(backend: Any, problem: Any) -> float:
    """Median milliseconds."""
    for _ in range(WARM_UP):
        backend.run(problem)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPETITIONS)]
    for start, end in events:
        start.record()
        backend.run(problem)
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events)
