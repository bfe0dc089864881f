"""Measured limits of this device: copy bandwidth and rate of matrix products."""

from __future__ import annotations

from typing import NamedTuple

import torch

from bench.layers import Layer, plain, tensors
from bench.timing import quantiles, time_together

COPIED_BYTES = {"cpu": 512 << 20, "cuda": 2 << 30}
MATRIX = {"cpu": 2048, "cuda": 8192}
CONVOLUTION = {"cpu": Layer(256, 256, 16, 3, 16), "cuda": Layer(512, 512, 32, 3, 128)}


class Ceilings(NamedTuple):
    """Bytes per second (read and written) and floating-point operations per second."""

    bandwidth: float
    rate: float

    def __str__(self) -> str:
        return f"{self.bandwidth / 1e9:.0f} GB/s and {self.rate / 1e9:.0f} GFLOP/s"

    def milliseconds(self, moved: float, operations: float) -> float:
        """The minimum time for this number of bytes and floating-point operations."""
        return 1e3 * max(moved / self.bandwidth, operations / self.rate)


def measure(device: str, dtype: torch.dtype) -> Ceilings:
    """The best of several copies, products of large square matrices, and a large convolution.

    On some processors PyTorch's convolution is much faster than its matrix product.
    """
    source = torch.ones(COPIED_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    size = MATRIX[device]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    layer = CONVOLUTION[device]
    conv, x = plain(layer, device, dtype), tensors(layer, device, dtype)[0]
    with torch.no_grad():
        samples = time_together(
            {
                "copy": lambda: target.copy_(source),
                "product": lambda: torch.mm(a, b),
                "convolution": lambda: conv(x),
            },
            device,
            10,
        )
    times = {name: quantiles(values) for name, values in samples.items()}
    rates = (
        2 * size**3 / times["product"].p20,
        layer.products(layer.out_channels) / times["convolution"].p20,
    )
    return Ceilings(2e3 * source.nbytes / times["copy"].p20, 1e3 * max(rates))


def weight_gradient(layer: Layer, learned: int, itemsize: int) -> tuple[float, float]:
    """Bytes (the input and the slice of the gradient, each read once) and operations.

    A slice of the gradient costs complete sectors of 32 bytes per pixel.
    """
    gradient = max(32, learned * itemsize) * layer.out_pixels
    return layer.pixels * layer.in_channels * itemsize + gradient, layer.products(learned)


def step(layer: Layer, learned: int, frozen: str, itemsize: int) -> tuple[float, float]:
    """Bytes and operations of forward and backward.

    Forward and the input's gradient need every filter that is not zero. The input is read twice and
    its gradient is written once; the output is written once and its gradient is read twice.
    """
    filters = layer.out_channels if frozen == "random" else learned
    x = layer.pixels * layer.in_channels * itemsize
    y = layer.out_pixels * layer.out_channels * itemsize
    computed = layer.out_pixels * filters * itemsize
    products = 2 * layer.products(filters) + layer.products(learned)
    return 3 * x + y + 2 * computed, products
