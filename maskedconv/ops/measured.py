"""Ranks the backends of an operator on CUDA by timing them once for each kind of problem.

The outputs of each backend are compared with those of the reference before it is timed, so that a
wrong kernel is reported and excluded (:mod:`maskedconv.ops.agreement`). Rankings are also cached on
disk (:mod:`maskedconv.ops.ranking_cache`), unless a kernel was wrong or could not be checked.

No process waits for another, and none for other streams than the current one: in data-parallel
training a collective operation of another rank may be under way there.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maskedconv.ops.agreement import Outputs, Unwritten, fault_of, outputs_of
from maskedconv.ops.kinds import ALIGNMENT
from maskedconv.ops.ranking_cache import Ranking, cache_for
from maskedconv.ops.timing import CudaQueue, queued_times

if TYPE_CHECKING:
    from maskedconv.ops.dispatch import Operator

REPETITIONS = 7  # odd: one of them is the median
UNMEASURED = Ranking(("reference",), "PyTorch's own, as nothing can be timed here")
_PLEASE = "Please report this with the output of `python -m maskedconv.env`."
Run = Callable[[Any], Any]


class WrongKernel(UserWarning):
    """A kernel is not used, because its result is wrong or it raised an error."""


def ranking(operator: Operator, backends: Mapping[str, Any], problem: Any) -> Ranking:
    """Backends that can compute ``problem`` on its CUDA device, the fastest first.

    Backends are timed once for each kind of problem. Under ``torch.use_deterministic_algorithms``
    nothing is timed: the kernels that are ``DETERMINISTIC`` come in the order of the table, then
    the reference. A kernel that names another as ``INSTEAD_OF`` is not tried where that one runs
    and is right. Only the reference is returned during the capture of a CUDA graph unless the kind
    was timed before, and in this process where memory does not suffice for comparisons.

    Args:
        backends: those to rank, "reference" included.
        problem: a :class:`maskedconv.ops.dispatch.Problem`.

    Returns:
        The ranking; :data:`UNMEASURED` holds for this call only.

    Raises:
        RuntimeError: a kernel left the GPU unusable for this process.
    """
    if operator.timed_problem is not None:
        problem = operator.timed_problem(problem)
    device = problem.tensors()[0].device
    cache = None if torch.are_deterministic_algorithms_enabled() else cache_for(device)
    # The index of a device differs between processes.
    key = repr((operator.name, problem.kind())).replace(f"{device!r}, ", "")
    if cache is not None and (found := cache.find(key, backends)) is not None:
        return found
    queue = CudaQueue(device)
    if queue.is_capturing():
        return UNMEASURED
    try:
        check = _Check(operator, backends, problem, queue)
        if cache is None:
            return _fixed(check)
        timed = _measure(check, operator.timed_reference)
    except torch.OutOfMemoryError:
        return Ranking(("reference",), "memory did not suffice to compare kernels with it")
    return timed if check.excluded else cache.add(key, timed, backends)


class _Check:
    """Compares the kernels for a problem with the reference, and times them.

    Attributes:
        excluded: the reasons why kernels that can run are not to run.
    """

    def __init__(
        self, operator: Operator, backends: Mapping[str, Any], problem: Any, queue: CudaQueue
    ) -> None:
        self._operator, self._queue = operator, queue
        self.reference: Run = functools.partial(operator.run, backends["reference"])
        self.kernels = {
            name: backend
            for name, backend in backends.items()
            if name != "reference" and not backend.cannot_run(problem)
        }
        self.excluded: list[str] = []
        self._given = problem

    @functools.cached_property
    def _case(self) -> tuple[Any, Outputs]:
        return _test_case(self.reference, self._given)

    def is_wanted(self, name: str, right: Collection[str]) -> bool:
        """Whether none of the kernels that were ``right`` makes this one superfluous."""
        return getattr(self.kernels[name], "INSTEAD_OF", None) not in right

    def time(self, run: Run) -> float:
        """Median milliseconds."""
        problem, _ = self._case
        times = queued_times(lambda: run(problem), self._queue, REPETITIONS).milliseconds
        return sorted(times)[len(times) // 2]

    def passes(self, name: str) -> bool:
        """Whether the kernel is right. A fault is warned of."""
        return self.time_if_right(name, lambda run: 0.0) is not None

    def time_if_right(self, name: str, time: Callable[[Run], float] | None = None) -> float | None:
        """:meth:`time` of the kernel, or None if it is excluded. A fault is warned of."""
        kernel = self.kernels[name]
        try:
            fault = self._fault(kernel)
            if not fault:
                return (time or self.time)(functools.partial(self._operator.run, kernel))
        except torch.OutOfMemoryError:
            self.excluded.append(f"{name} was not checked, as memory did not suffice")
            return None
        except Exception as error:  # no other error of a kernel may stop a training run
            self._raise_if_lost(name, error)
            fault = f"raised {type(error).__name__}: {error}"
        self.excluded.append(f"{name} {fault}")
        warnings.warn(
            f"{self._operator.name}: the {name} kernel {fault}; it is not used for this shape. "
            f"{_PLEASE}",
            WrongKernel,
            stacklevel=2,
        )
        return None

    def _fault(self, kernel: Any) -> str:
        problem, expected = self._case
        with Unwritten():
            outputs = outputs_of(self._operator.run(kernel, problem))
        return fault_of(self._operator.compare, problem, outputs, expected)

    def _raise_if_lost(self, name: str, error: Exception) -> None:
        """Raises if the error left this process without its GPU: every later call would fail."""
        try:
            self._queue.synchronize()
        except Exception:
            raise RuntimeError(
                f"{self._operator.name}: the {name} kernel left the GPU unusable for this process: "
                f"{type(error).__name__}: {error}. MASKEDCONV_BACKEND=reference avoids it. "
                f"{_PLEASE}"
            ) from error


def _fixed(check: _Check) -> Ranking:
    """The ranking that does not depend on timings; kernels that are wrong are left out."""
    names = [
        name for name, kernel in check.kernels.items() if getattr(kernel, "DETERMINISTIC", False)
    ]
    if not names:
        return Ranking(("reference",), "no other is known to be deterministic")
    sound: list[str] = []
    for name in names:
        if check.is_wanted(name, sound) and check.passes(name):
            sound.append(name)
    reason = "; ".join(["the first that is deterministic, untimed", *check.excluded])
    return Ranking((*sound, "reference"), reason)


def _measure(check: _Check, otherwise: Run | None) -> Ranking:
    """The ranking by time."""
    milliseconds = {"reference": check.time(otherwise or check.reference)}
    for name in check.kernels:
        time = check.time_if_right(name) if check.is_wanted(name, milliseconds) else None
        if time is not None:
            milliseconds[name] = time
    names = tuple(sorted(milliseconds, key=lambda name: milliseconds[name]))
    times = ", ".join(f"{name} {milliseconds[name]:.3f} ms" for name in names)
    return Ranking(names, "; ".join([f"the fastest when timed: {times}", *check.excluded]))


def _test_case(reference: Run, problem: Any) -> tuple[Any, Outputs]:
    """A problem of the same kind that can expose a wrong kernel, and its outputs.

    This is the problem itself, unless an output is zero (the gradient of a block that ends in a γ
    of 0) or not finite (the first steps under a loss scale). Then it is one with random values.
    """
    expected = outputs_of(reference(problem))
    if all(map(_is_informative, expected)):
        return problem, expected
    if hasattr(problem, "stand_in"):
        problem = problem.stand_in(_random_like)
    else:
        parts = [_random_like(part) if isinstance(part, Tensor) else part for part in problem]
        problem = type(problem)(*parts)
    return problem, outputs_of(reference(problem))


def _is_informative(output: Tensor) -> bool:
    if not output.numel():
        return True
    largest = torch.maximum(output.amax(), -output.amin())
    return bool((largest > 0) & largest.isfinite())  # a NaN is the largest value


def _random_like(tensor: Tensor) -> Tensor:
    """Normal values with the same strides and alignment; leaves PyTorch's generators unchanged."""
    if not tensor.numel():
        return tensor
    first = tensor.data_ptr() % ALIGNMENT // tensor.element_size()
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    values = torch.empty(first + span, dtype=tensor.dtype, device=tensor.device)
    values.normal_(generator=torch.Generator(tensor.device).manual_seed(0))
    return values.as_strided(tensor.shape, tensor.stride(), first)
