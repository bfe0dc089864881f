"""The weight gradient, and forward and backward of a layer, beside what plain PyTorch offers.

``python -m bench.compare`` prints tables of ratios (plain PyTorch over ours: above 1, ours is
faster) and writes all times, device and versions to ``bench/results/<device>.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.peers import IMPLEMENTATIONS
from bench.timing import Quantiles, time_together
from maskedconv import env
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad import BACKENDS, WeightGradProblem

RESULTS = Path(__file__).parent / "results"


class Layer(NamedTuple):
    """A convolution of ``batch`` images of ``size``² pixels, stride 1, padded to the same size."""

    in_channels: int
    out_channels: int
    size: int
    kernel: int
    batch: int

    def __str__(self) -> str:
        channels = f"{self.in_channels}->{self.out_channels}"
        return f"{channels} @{self.size} {self.kernel}x{self.kernel}, batch {self.batch}"

    @property
    def pixels(self) -> int:
        return self.batch * self.size**2


CPU_LAYERS = (
    Layer(64, 64, 32, 3, 16),
    Layer(128, 128, 16, 3, 16),
    Layer(256, 256, 8, 3, 16),
    Layer(160, 160, 32, 3, 8),
    Layer(204, 48, 32, 1, 16),
    Layer(48, 12, 32, 3, 16),
)
GPU_LAYERS = (
    Layer(160, 160, 32, 3, 128),
    Layer(320, 320, 16, 3, 128),
    Layer(640, 640, 8, 3, 128),
    Layer(64, 64, 32, 3, 128),
    Layer(128, 128, 16, 3, 128),
    Layer(256, 256, 8, 3, 128),
    Layer(204, 48, 32, 1, 128),
    Layer(48, 12, 32, 3, 128),
    Layer(512, 512, 4, 3, 128),
)
FRACTIONS = (0.1, 0.4, 0.7, 1.0)
COUNTS = (1, 5, 8, 10, 16)


def tensors(layer: Layer, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Input and output gradient, channels_last."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(layer.batch, c, layer.size, layer.size) for c in layer[:2]]
    return tuple(
        torch.randn(shape, generator=generator)
        .to(device, dtype)
        .to(memory_format=torch.channels_last)
        for shape in shapes
    )  # type: ignore[return-value]


def numbers_of_filters(layer: Layer) -> list[int]:
    counts = {*COUNTS, *(int(p * layer.out_channels) for p in FRACTIONS)}
    return sorted(n for n in counts if 1 <= n <= layer.out_channels)


def floor(layer: Layer, learned: int, itemsize: int) -> dict[str, float]:
    """What no kernel can avoid: reading the input once and the slice of the gradient; products."""
    gradient = max(32, learned * itemsize) * layer.pixels
    return {
        "floor_mb": (layer.pixels * layer.in_channels * itemsize + gradient) / 1e6,
        "gflop": 2e-9 * layer.pixels * layer.in_channels * learned * layer.kernel**2,
    }


def weight_gradients(
    layer: Layer, learned: int, x: Tensor, grad: Tensor
) -> dict[str, Callable[[], object]]:
    """The backends that take this problem, peer 5, and the gradient of every filter."""
    pad = layer.kernel // 2
    geometry = ConvGeometry((1, 1), (pad, pad), (1, 1), 1)
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
    """A step of the layer by every implementation; zeroed filters have the plain peer alone."""
    from maskedconv import MaskedConv2d

    torch.manual_seed(0)
    conv = nn.Conv2d(*layer[:2], layer.kernel, padding=layer.kernel // 2, bias=False)
    conv = conv.to(x.device, x.dtype).to(memory_format=torch.channels_last)
    modules: dict[str, nn.Module] = {"conv2d": conv}
    if frozen == "zero":
        modules["maskedconv"] = MaskedConv2d.from_conv2d(conv, learned=learned, frozen="zero")
    elif learned < layer.out_channels:
        modules |= {name: make(conv, learned) for name, make in IMPLEMENTATIONS.items()}
    else:
        modules["maskedconv"] = MaskedConv2d.from_conv2d(conv, learned=learned)
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()

    def step(module: nn.Module) -> None:
        leaf.grad = None
        module.zero_grad()
        module(leaf).backward(grad)

    return {name: (lambda module=module: step(module)) for name, module in modules.items()}


def measure(
    device: str, dtype: torch.dtype, layers: tuple[Layer, ...], rounds: int
) -> list[dict[str, Any]]:
    """A row for each layer and number of learned filters, operator and whole layer."""
    rows = []
    for layer in layers:
        x, grad = tensors(layer, device, dtype)
        for learned in numbers_of_filters(layer):
            about = {
                "layer": str(layer),
                "learned": learned,
                **floor(layer, learned, x.element_size()),
            }
            times = time_together(weight_gradients(layer, learned, x, grad), device, rounds)
            rows.append({"what": "weight gradient", **about, "ms": times})
        for p in FRACTIONS:
            learned = max(1, int(p * layer.out_channels))
            for frozen in ("random", "zero") if p < 1 else ("random",):
                functions = forward_and_backward(layer, learned, frozen, x, grad)
                times = time_together(functions, device, rounds)
                about = {"layer": str(layer), "learned": learned, "frozen": frozen}
                rows.append({"what": "forward and backward", **about, "ms": times})
                print(".", end="", flush=True)
    print()
    return rows


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown: times of ours, and the ratio of every other to it."""
    lines = []
    for what in ("weight gradient", "forward and backward"):
        lines += [
            f"\n### {what}\n",
            "| layer | learned | ours ms (p20-p80) | others / ours |",
            "|---|---|---|---|",
        ]
        for row in (row for row in rows if row["what"] == what):
            times = {name: Quantiles(*value) for name, value in row["ms"].items()}
            for name in [n for n in times if n in (*BACKENDS, "maskedconv")]:
                own = times[name]
                ratios = ", ".join(
                    f"{other} {t.p50 / own.p50:.2f}" for other, t in times.items() if other != name
                )
                label = f"{row['learned']} {row.get('frozen', name)}"
                span = f"{own.p50:.3f} ({own.p20:.3f}-{own.p80:.3f})"
                lines.append(f"| {row['layer']} | {label} | {span} | {ratios} |")
    return "\n".join(lines)


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name().replace(" ", "-").lower()
    return f"cpu-{platform.machine()}-{torch.get_num_threads()}-threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=20, help="paired repetitions")
    arguments = parser.parse_args()
    cuda = arguments.device == "cuda"
    dtype, layers = (torch.bfloat16, GPU_LAYERS) if cuda else (torch.float32, CPU_LAYERS)
    rows = measure(arguments.device, dtype, layers, arguments.rounds)
    name = device_name(arguments.device)
    RESULTS.mkdir(exist_ok=True)
    record = {"device": name, "dtype": str(dtype), "environment": env.collect(), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    text = f"# {name}, {dtype}, channels_last\n{tables(rows)}\n"
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
