"""What the table for the CPU rests on: each way of computing a layer's gradients, side by side.

``python -m bench.ways`` measures forward and backward of every convolution of the paper's networks
with the compiled kernel, with PyTorch's sliced operator and with PyTorch's gradient of all filters,
and says where ``maskedconv/ops/weight_grad/cpu_table.py`` chooses one that is slower than another.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from bench import results
from bench.layers import NETWORKS, Layer, layers_of, numbers_of_filters, plain, tensors
from bench.results import Row, row
from bench.timing import time_together
from maskedconv import MaskedConv2d
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad import WeightGradProblem, cpu_table

# As the package has the operator by this name.
_operator = sys.modules["maskedconv.ops.weight_grad"]
WAYS = ("kernel", "library", "all filters")
LEAST = 0.02  # of the time; less is not worth a rule


def steps(layer: Layer, learned: int) -> dict[str, Callable[[], None]]:
    """Forward and backward in each way."""
    x, grad = tensors(layer, "cpu", torch.float32)
    x.requires_grad_(layer.in_channels > 3)
    conv = plain(layer, "cpu", torch.float32)

    def step_of(way: str) -> Callable[[], None]:
        module = MaskedConv2d.from_conv2d(conv, learned=learned)
        module.means = module.means._replace(whole=way == "all filters")

        def takes_kernel(problem: WeightGradProblem) -> bool:
            return way == "kernel"

        def step() -> None:
            _operator._takes_kernel = takes_kernel  # type: ignore[attr-defined]
            x.grad = None
            module.zero_grad()
            module(x).backward(grad)

        return step

    return {way: step_of(way) for way in WAYS}


def chosen(layer: Layer, learned: int) -> str:
    """The way that the table chooses."""
    shape = torch.Size((learned, layer.in_channels, layer.kernel, layer.kernel))
    if cpu_table.whole_is_faster(shape, layer.out_channels):
        return "all filters"
    x, grad = tensors(layer._replace(batch=1), "cpu", torch.float32)
    geometry = ConvGeometry((layer.stride,) * 2, (layer.padding,) * 2, (1, 1), 1)
    problem = WeightGradProblem(x, grad, shape, 0, geometry)
    return "kernel" if cpu_table.native_is_faster(problem) else "library"


def measure(rounds: int) -> list[Row]:
    """A row for each different layer and number of learned filters, where some are not learned."""
    layers = dict.fromkeys(layer for network in NETWORKS for layer in layers_of(network))
    rows: list[Row] = []
    for position, layer in enumerate(layers, start=1):
        for learned in numbers_of_filters(layer):
            if learned == layer.out_channels:
                continue
            samples = time_together(steps(layer, learned), "cpu", rounds)
            choice = chosen(layer, learned)
            rows.append(row("ways", layer, learned, "random", None, samples, chosen=choice))
        print(f"\r{position} of {len(layers)} layers", end="", flush=True)
    print()
    return rows


def regrets(rows: list[Row]) -> str:
    """Where another way is faster than the one that the table chooses, as Markdown."""
    lines = []
    for row_ in rows:
        times = {way: row_["ms"][way].p50 for way in WAYS}
        best = min(times, key=lambda way: times[way])
        lost = times[row_["chosen"]] / times[best] - 1
        if lost > LEAST:
            line = f"{row_['layer']}, {row_['learned']} learned: {row_['chosen']}, not {best}"
            lines.append((lost, f"- {lost:.3f}: {line}"))
    found = "\n".join(line for _, line in sorted(lines, reverse=True))
    return f"\nmore than {LEAST} of the time lost in {len(lines)} of {len(rows)}:\n\n{found}"


def main() -> None:
    arguments = results.parse(__doc__)
    results.write("cpu", torch.float32, "ways", rows := measure(arguments.rounds), regrets(rows))


if __name__ == "__main__":
    main()
