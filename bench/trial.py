"""Times the CPU kernel of weight_grad with warm and cold caches.

``python -m bench.trial 3 16 32 3 128 --filters 1 5 11`` prints the milliseconds for one layer. To
compare two checkouts of this repository, run it in each in turn. It writes no files.
"""

from __future__ import annotations

import argparse
import time

import torch

from bench.gpu_check.problems import problem_of
from bench.gpu_check.shapes import Shape
from bench.timing import quantiles
from maskedconv.ops.weight_grad import WeightGradProblem, native
from maskedconv.training.memory import keep_freed_memory

ROUNDS = 60
BESIDE = 8_000_000  # floats read and written before a call with cold caches


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
    for filters in arguments.filters:
        shape = Shape(
            arguments.in_channels, arguments.out_channels, arguments.size, arguments.kernel,
            filters, arguments.stride, arguments.batch, 0, arguments.prologue, "float32",
        )  # fmt: skip
        problem = problem_of(shape, "cpu")
        warm, cold = (milliseconds(problem, cold) for cold in (False, True))
        print(f"{shape}, batch {shape.batch}: warm {warm:.3f} ms, cold {cold:.3f} ms")


if __name__ == "__main__":
    main()
