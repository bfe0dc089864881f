"""Times the CPU kernel of weight_grad with warm and cold caches.

``python -m bench.trial 3 16 32 3 128 --filters 1 5 11`` prints the milliseconds for one layer. To
compare two checkouts of this repository, run it in each in turn. It writes no files.
"""

from __future__ import annotations

import argparse
import time

import torch

from bench.layers import Layer, tensors
from bench.timing import quantiles
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad import WeightGradProblem, native
from maskedconv.training.memory import keep_freed_memory

ROUNDS = 60
BESIDE = 8_000_000  # floats read and written before a call with cold caches


def problem_of(layer: Layer, filters: int, prologue: bool) -> WeightGradProblem:
    """The gradient of the first filters; ``prologue`` puts BatchNorm and ReLU in front."""
    x, grad = tensors(layer, "cpu", torch.float32)
    shape = torch.Size((filters, layer.in_channels, layer.kernel, layer.kernel))
    geometry = ConvGeometry((layer.stride,) * 2, (layer.padding,) * 2, (1, 1), 1)
    affine = torch.rand(2, layer.in_channels).unbind() if prologue else (None, None)
    return WeightGradProblem(x, grad, shape, 0, geometry, *affine)


def milliseconds(problem: WeightGradProblem, cold: bool) -> float:
    """The median of :data:`ROUNDS` calls."""
    beside = torch.zeros(BESIDE)
    times = []
    for _ in range(ROUNDS):
        if cold:
            beside += 1
        start = time.perf_counter()
        native.run(problem)
        times.append((time.perf_counter() - start) * 1e3)
    return quantiles(times).p50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("in_channels", "out_channels", "size", "kernel", "batch"):
        parser.add_argument(name, type=int)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--filters", type=int, nargs="+", required=True)
    parser.add_argument("--prologue", action="store_true", help="BatchNorm and ReLU in front")
    arguments = parser.parse_args()
    keep_freed_memory()
    layer = Layer(
        arguments.in_channels, arguments.out_channels, arguments.size, arguments.kernel,
        arguments.batch, arguments.stride,
    )  # fmt: skip
    for filters in arguments.filters:
        problem = problem_of(layer, filters, arguments.prologue)
        warm, cold = (milliseconds(problem, cold) for cold in (False, True))
        print(f"{layer}, {filters} filters: warm {warm:.3f} ms, cold {cold:.3f} ms")


if __name__ == "__main__":
    main()
