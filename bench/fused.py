"""Memory that fuse_ saves in networks of timm and torchvision, and the time that it costs.

``python -m bench.fused`` prints a Markdown table; ``--save`` writes it to ``results/fused.md``.
Kept bytes do not depend on the device and are proportional to the batch size.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import timm
import torch
import torchvision
from torch import Tensor, nn

from bench.peaks import median_peak
from bench.results import FOLDER
from bench.saved_bytes import saved_bytes
from bench.timing import ratio, time_together
from maskedconv import convert_, fuse_
from maskedconv.fusion.attached import attach
from maskedconv.runs.peak_memory import peak_resident

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "torchvision resnet18": torchvision.models.resnet18,
    "torchvision resnet50": torchvision.models.resnet50,
    "timm resnet50": partial(timm.create_model, "resnet50"),
    "torchvision densenet121": torchvision.models.densenet121,
    "timm densenet121": partial(timm.create_model, "densenet121"),
    "torchvision mobilenet_v2": torchvision.models.mobilenet_v2,
    "timm mobilenetv2_100": partial(timm.create_model, "mobilenetv2_100"),
    "timm efficientnet_b0": partial(timm.create_model, "efficientnet_b0"),
    "timm convnext_atto": partial(timm.create_model, "convnext_atto"),
    "timm vit_tiny_patch16_224": partial(timm.create_model, "vit_tiny_patch16_224", img_size=96),
}
# Measured with a tenth of the filters learned as well.
CONVERTED = [name for name in NETWORKS if name.startswith("torchvision")]
HEAD = """# fuse_: kept for backward, peak of a process, time of a training step

`python -m bench.fused --save` on {machine}, torch {torch}, float32, one thread,
batch {batch}, {size}×{size}. MiB of unique storages without parameters and buffers; the peak is
what the first training step adds to the memory of a process; the time is the median of the ratios
fused / plain in {rounds} rounds. "p = .1" is `convert_(model, learned=0.1)`, plain and fused; what
is kept then includes a copy of each layer's filters, packed for the pass.

| network | filters | kept, plain | kept, fused | ratio | peak, plain | peak, fused | time | left |
|---|---|---|---|---|---|---|---|---|
"""


class Setting(NamedTuple):
    network: str
    is_converted: bool
    batch: int
    size: int

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        model = NETWORKS[self.network]()
        return convert_(model, learned=0.1, seed=0) if self.is_converted else model

    def images(self, batch: int | None = None) -> Tensor:
        return torch.randn(batch or self.batch, 3, self.size, self.size)


def step(model: nn.Module, images: Tensor) -> None:
    model(images).square().mean().backward()


def peak(setting: Setting, is_fused: bool) -> int:
    """Bytes that a training step adds to a process: the median of several processes."""
    return median_peak(_peak, setting, is_fused)


def _peak(setting: Setting, is_fused: bool) -> int:
    torch.set_num_threads(1)
    model, images = setting.model(), setting.images()
    if is_fused:
        # Without the passes that verify it, which keep more.
        attach(model, paused=())
    # Not by a step: later ones would use its freed memory, which the peak includes already.
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    before = peak_resident()
    step(model, images)
    return peak_resident() - before


def measure(setting: Setting, rounds: int) -> str:
    """A line of the table."""
    model, fused, images = setting.model(), setting.model(), setting.images()
    report = fuse_(fused, setting.images(2))
    kept = [
        saved_bytes(partial(one, images), [*one.parameters(), *one.buffers()])
        for one in (model, fused)
    ]
    samples = time_together(
        {"plain": partial(step, model, images), "fused": partial(step, fused, images)},
        "cpu",
        rounds,
        warmup=1,
    )
    peaks = [peak(setting, is_fused) for is_fused in (False, True)]
    cells = (
        setting.network,
        "p = .1" if setting.is_converted else "all",
        *(f"{bytes_ / 2**20:.1f}" for bytes_ in kept),
        f"{kept[1] / kept[0]:.3f}",
        *(f"{bytes_ / 2**20:.0f}" for bytes_ in peaks),
        f"{ratio(samples, 'fused', 'plain'):.2f}",
        ", ".join(report.left_alone) or "–",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write results/fused.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    head = HEAD.format(machine=platform.machine(), torch=torch.__version__, **vars(arguments))
    lines = []
    print(head, end="", flush=True)
    for name in arguments.networks:
        for is_converted in (False, True) if name in CONVERTED else (False,):
            setting = Setting(name, is_converted, arguments.batch, arguments.size)
            lines.append(measure(setting, arguments.rounds))
            print(lines[-1], flush=True)
    if arguments.save:
        (FOLDER / "fused.md").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
