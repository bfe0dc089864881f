"""First epoch of figure 2's network with the last slices learned, as in the authors' code.

``python -m bench.last_slices --data-dir CIFAR10 --learned 0.1 --slice-dim 1 --frozen zero`` trains
DenseNet-BC-100-12 once with the first and once with the last slices, under bfloat16 autocast.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from maskedconv import convert_, data, merge_, models
from maskedconv.runs.config import RunConfig
from maskedconv.training.loop import train

MODEL = "densenet_bc_100_12"


def top1(config: RunConfig, dataset: data.Dataset, which: Any) -> float:
    """Accuracy on the test images in percent, with the slices ``which`` learned."""
    torch.manual_seed(config.seed)
    plain = merge_(models.create(MODEL, num_classes=10, seed=config.seed))
    frozen: Any = "zero" if config.frozen == "zero" else "keep"
    model = convert_(
        plain,
        learned=config.learned,
        slice_dim=config.slice_dim,
        frozen=frozen,
        which=which,
        rest="learn",
    )
    result = train(model, dataset, config).last_top1
    assert result is not None  # one epoch was trained
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--learned", type=float, default=0.1)
    parser.add_argument("--slice-dim", type=int, default=1)
    parser.add_argument("--frozen", choices=("random", "zero"), default="zero")
    parser.add_argument("--which", nargs="+", default=["first", "last"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dataset = data.load("cifar10", arguments.data_dir)
    config = RunConfig(
        model=MODEL,
        dataset="cifar10",
        learned=arguments.learned,
        slice_dim=arguments.slice_dim,
        frozen=arguments.frozen,
        seed=arguments.seed,
        amp="bf16",
        **asdict(models.recipe(MODEL)) | {"epochs": 1},
    )
    print(config.label(), flush=True)
    for which in arguments.which:
        print(f"{which} learned: {top1(config, dataset, which):.2f} %", flush=True)


if __name__ == "__main__":
    main()
