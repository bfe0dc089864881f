"""Compares the weight gradient, and forward and backward of a layer, with plain PyTorch.

``python -m bench.compare`` prints tables of ratios (plain PyTorch over ours: above 1, ours is
faster) with the minimum time on the device, and writes them to ``bench/results/``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench import ceilings, results
from bench.layers import CPU_LAYERS, GPU_LAYERS, Layer, numbers_of_filters, plain, tensors
from bench.peers import IMPLEMENTATIONS, ZEROED
from bench.results import Row, row
from bench.timing import time_together
from maskedconv import MaskedConv2d
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad import BACKENDS, WeightGradProblem

FRACTIONS = (0.1, 0.4, 0.7, 1.0)
COUNTS = (8, 16)


def weight_gradients(
    layer: Layer, learned: int, x: Tensor, grad: Tensor
) -> dict[str, Callable[[], object]]:
    """The backends that take this problem, the sliced peer, and the gradient of every filter."""
    stride, padding = (layer.stride,) * 2, (layer.padding,) * 2
    geometry = ConvGeometry(stride, padding, (1, 1), 1)
    shape = torch.Size((learned, layer.in_channels, layer.kernel, layer.kernel))
    problem = WeightGradProblem(x, grad, shape, 0, geometry)

    def library(filters: int) -> Callable[[], object]:
        weight = x.new_empty((filters, *shape[1:])).to(memory_format=torch.channels_last)
        rest = (None, *geometry[:3], False, (0, 0), 1, (False, True, False))
        backward = torch.ops.aten.convolution_backward
        return lambda: backward(grad[:, :filters], x, weight, *rest)[1][:learned]

    ours: dict[str, Callable[[], object]] = {
        name: (lambda backend=backend: backend.run(problem))
        for name, backend in BACKENDS.items()
        if name != "reference" and not backend.cannot_run(problem)
    }
    rounded = min(layer.out_channels, -(-learned // 8) * 8)
    return {**ours, "sliced backward": library(rounded), "all filters": library(layer.out_channels)}


def forward_and_backward(
    layer: Layer, learned: int, frozen: str, x: Tensor, grad: Tensor
) -> dict[str, Callable[[], object]]:
    """A step of the layer by every implementation of it."""
    conv = plain(layer, str(x.device), x.dtype)
    modules: dict[str, nn.Module] = {"conv2d": conv}
    if frozen == "zero":
        modules["maskedconv"] = MaskedConv2d.from_conv2d(conv, learned=learned, frozen="zero")
        modules |= {name: make(conv, learned) for name, make in ZEROED.items()}
    elif learned < layer.out_channels:
        modules |= {name: make(conv, learned) for name, make in IMPLEMENTATIONS.items()}
    else:
        modules["maskedconv"] = MaskedConv2d.from_conv2d(conv, learned=learned)
    leaf = x.detach().clone(memory_format=torch.preserve_format)
    # The first layer's input needs no gradient.
    leaf.requires_grad_(layer.in_channels > 3)

    def step(module: nn.Module) -> None:
        leaf.grad = None
        module.zero_grad()
        module(leaf).backward(grad)

    return {name: (lambda module=module: step(module)) for name, module in modules.items()}


def measure(
    device: str, dtype: torch.dtype, layers: tuple[Layer, ...], rounds: int, best: ceilings.Ceilings
) -> list[Row]:
    """A row for each layer and number of learned filters, operator and whole layer."""
    rows: list[Row] = []
    for layer in layers:
        x, grad = tensors(layer, device, dtype)
        itemsize = x.element_size()
        for learned in numbers_of_filters(layer, COUNTS):
            least = best.milliseconds(*ceilings.weight_gradient(layer, learned, itemsize))
            functions = weight_gradients(layer, learned, x, grad)
            samples = time_together(functions, device, rounds)
            rows.append(row("weight gradient", layer, learned, "random", least, samples))
        for p in FRACTIONS:
            learned = max(1, int(p * layer.out_channels))
            for frozen in ("random", "zero") if p < 1 else ("random",):
                least = best.milliseconds(*ceilings.step(layer, learned, frozen, itemsize))
                functions = forward_and_backward(layer, learned, frozen, x, grad)
                samples = time_together(functions, device, rounds)
                rows.append(row("forward and backward", layer, learned, frozen, least, samples))
                print(".", end="", flush=True)
    print()
    return rows


def main() -> None:
    arguments = results.options(__doc__).parse_args()
    dtype = results.dtype_of(arguments)
    layers = GPU_LAYERS if arguments.device == "cuda" else CPU_LAYERS
    best = ceilings.measure(arguments.device, dtype)
    rows = measure(arguments.device, dtype, layers, arguments.rounds, best)
    further = f"\nLimits of the device in this run: {best}."
    results.write(arguments.device, dtype, "layers", rows, further, limits=best)


if __name__ == "__main__":
    main()
