"""Measurements behind the dispatch on the CPU: each algorithm for a layer's gradients.

``python -m bench.ways`` measures forward and backward of every convolution of the paper's networks
with the compiled kernel, with PyTorch's operator on a slice, and with PyTorch's gradient of all
filters. It lists the settings in which the dispatch does not choose the fastest one. ``--zeroed``
measures zero filters, with fewer fractions: by the kernel, and by PyTorch's joint gradients of the
input and the learned filters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import results
from bench.layers import NETWORKS, Layer, layers_of, numbers_of_filters, plain, tensors
from bench.networks import few_numbers
from bench.results import Row, row
from bench.timing import time_together
from maskedconv import MaskedConv2d
from maskedconv.ops.weight_grad.jointly import types_faster_jointly

BACKENDS = {"kernel": None, "library": "reference"}
WAYS = (*BACKENDS, "all filters")
LEAST = 0.02  # fraction of the time; a smaller loss is not worth a rule


def steps(
    layer: Layer, learned: int, dtype: torch.dtype, zeroed: bool
) -> dict[str, Callable[[], None]]:
    """Forward and backward with each algorithm; without all filters if some are zero."""
    x, grad = tensors(layer, "cpu", dtype)
    x.requires_grad_(layer.in_channels > 3)
    conv = plain(layer, "cpu", dtype)

    def step_of(way: str) -> Callable[[], None]:
        module = MaskedConv2d.from_conv2d(
            conv, learned=learned, frozen="zero" if zeroed else "keep"
        )
        module.backend = BACKENDS.get(way)

        def forward() -> Tensor:
            if way in BACKENDS:
                return module(x)
            assert module.frozen is not None
            weight = torch.cat((module.learned, module.frozen))
            return F.conv2d(x, weight, None, layer.stride, layer.padding)

        def step() -> None:
            x.grad = None
            module.zero_grad()
            forward().backward(grad)

        return step

    return {way: step_of(way) for way in (BACKENDS if zeroed else WAYS)}


def chosen(layer: Layer, learned: int, dtype: torch.dtype) -> str:
    """The algorithm that runs."""
    shape = (learned, layer.in_channels, layer.kernel, layer.kernel)
    jointly = types_faster_jointly(shape, layer.out_channels)
    return "all filters" if dtype in jointly else "kernel"


def measure(rounds: int, dtype: torch.dtype, zeroed: bool) -> list[Row]:
    """A row for each distinct layer and number of learned filters, without fully learned layers."""
    numbers = few_numbers if zeroed else numbers_of_filters
    frozen = "zero" if zeroed else "random"
    layers = dict.fromkeys(layer for network in NETWORKS for layer in layers_of(network))
    rows: list[Row] = []
    for position, layer in enumerate(layers, start=1):
        for learned in numbers(layer):
            if learned == layer.out_channels:
                continue
            samples = time_together(steps(layer, learned, dtype, zeroed), "cpu", rounds)
            way = "kernel" if zeroed else chosen(layer, learned, dtype)
            rows.append(row("ways", layer, learned, frozen, None, samples, chosen=way))
        print(f"\r{position} of {len(layers)} layers", end="", flush=True)
    print()
    return rows


def regrets(rows: list[Row]) -> str:
    """The settings in which another algorithm is faster than the chosen one, as Markdown."""
    lines = []
    for row_ in rows:
        times = {way: times.p50 for way, times in row_["ms"].items()}
        best = min(times, key=lambda way: times[way])
        lost = times[row_["chosen"]] / times[best] - 1
        if lost > LEAST:
            line = f"{row_['layer']}, {row_['learned']} learned: {row_['chosen']}, not {best}"
            lines.append((lost, f"- {lost:.3f}: {line}"))
    found = "\n".join(line for _, line in sorted(lines, reverse=True))
    return f"\nmore than {LEAST} of the time lost in {len(lines)} of {len(rows)}:\n\n{found}"


def main() -> None:
    parser = results.options(__doc__)
    parser.add_argument("--zeroed", action="store_true", help="the other filters are zero")
    arguments = parser.parse_args()
    dtype = results.dtype_of(arguments)
    rows = measure(arguments.rounds, dtype, arguments.zeroed)
    results.write("cpu", dtype, "ways-zeroed" if arguments.zeroed else "ways", rows, regrets(rows))


if __name__ == "__main__":
    main()
