"""Whether a kernel's outputs agree with the reference's, except for rounding.

Outputs are compared one by one and element by element, so that no value hides another. They are
compared in pieces: the comparison allocates little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Relative to a value: half precision and TF32, summed in another order.
TOLERANCE = 0.02
# Relative to the terms of float32 arithmetic, which may cancel: 256 roundings.
NOISE = 2.0**-16
_PIECE = 1 << 20  # elements
_LEAST = float(torch.finfo(torch.float32).tiny)  # below it, a GPU may round to 0


class Output(NamedTuple):
    """One output of an operator, or a part of it.

    Attributes:
        name: for a message; empty if there is no other output.
        result, expected: of equal shape.
        leeway: an error that may be rounding, besides ``tolerance`` relative to each value. A
            number, or a tensor that broadcasts to the result.
    """

    name: str
    result: Tensor
    expected: Tensor
    leeway: Tensor | float = 0.0
    tolerance: float = TOLERANCE


Outputs = tuple[Tensor, ...]
# Gives the outputs to compare, for a problem, the kernel's outputs and the reference's.
Compare = Callable[[Any, Outputs, Outputs], Iterable[Output]]


def elementwise(problem: Any, results: Outputs, expected: Outputs) -> Iterator[Output]:
    """Each value on its own, for operators whose values are not sums that may cancel."""
    for result, right in zip(results, expected, strict=True):
        yield Output("", result, right)


def outputs_of(result: Tensor | Outputs) -> Outputs:
    """The outputs of a backend."""
    return (result,) if isinstance(result, Tensor) else result


def fault_of(compare: Compare, problem: Any, results: Outputs, expected: Outputs) -> str:
    """A description of the fault of ``results``, or an empty string."""
    shapes = [[tuple(part.shape) for part in parts] for parts in (results, expected)]
    if shapes[0] != shapes[1]:
        found, right = (", ".join(map(str, part)) for part in shapes)
        return f"gives the shape {found}, not {right}"
    for output in compare(problem, results, expected):
        if fault := _fault(output):
            return fault
    return ""


def _fault(output: Output) -> str:
    name, result, expected, leeway, tolerance = output
    if not isinstance(leeway, Tensor):
        leeway = expected.new_full((), leeway, dtype=torch.float64)
    for found, right, spare in pieces(result, expected, leeway.expand(expected.shape)):
        right = right.double()
        error = (found.double() - right).abs_()
        limit = right.abs().mul_(tolerance).add_(spare).add_(least_step(expected.dtype))
        # Written so that a NaN is a fault.
        if not bool((error <= limit).all()):
            place = f" in {name}" if name else ""
            return (
                f"is off by {_largest(error):.3g}{place} where values reach {_largest(right):.3g}"
            )
    return ""


def least_step(dtype: torch.dtype) -> float:
    """The distance of the smallest numbers, which a kernel may also round to 0."""
    return max(_LEAST, float(torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps))


def _largest(values: Tensor) -> float:
    return float(values.abs().max())


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same parts of tensors of equal shape, of about a million elements."""
    first = tensors[0]
    if first.numel() <= _PIECE:
        if first.numel():
            yield tensors
        return
    # Channels stay together: their numbers are one for each.
    dim = max((dim for dim in range(first.dim()) if dim != 1), key=first.size, default=0)
    if first.size(dim) == 1:
        yield tensors
        return
    half = first.size(dim) // 2
    for start, length in ((0, half), (half, first.size(dim) - half)):
        yield from pieces(*(tensor.narrow(dim, start, length) for tensor in tensors))


class Unwritten(TorchDispatchMode):
    """Context in which new memory holds NaN, so that a kernel that leaves some of it is noticed.

    Otherwise that memory may still hold the result of another kernel.
    """

    _NEW = (
        torch.ops.aten.empty.memory_format,
        torch.ops.aten.empty_like.default,
        torch.ops.aten.empty_strided.default,
        torch.ops.aten.new_empty.default,
        torch.ops.aten.new_empty_strided.default,
    )

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Runs the operator."""
        result = operator(*args, **(kwargs or {}))
        if operator in self._NEW and result.is_floating_point():
            result.fill_(torch.nan)
        return result
