"""What thin() saves in evaluation: ``python -m bench.thinned`` prints a Markdown table."""

from __future__ import annotations

import argparse
from functools import partial

import torch
import torchvision

from bench.timing import ratio, time_together
from maskedconv import convert_, merge_, models, thin

NETWORKS = {
    "resnet_14": partial(models.create, "resnet_14", seed=0),
    "torchvision resnet18": torchvision.models.resnet18,
}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learned", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | parameters | thinned | time / merged |\n|---|---|---|---|")
    for name, create in NETWORKS.items():
        plain = merge_(create())
        model = convert_(plain, learned=arguments.learned, frozen="zero").eval()
        images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
        thinned, report = thin(model, images[:2])
        runs = {"merged": partial(merge_(model), images), "thinned": partial(thinned, images)}
        samples = time_together(runs, "cpu", arguments.rounds)
        before, after = report.parameters
        print(f"| {name} | {before} | {after} | {ratio(samples, 'thinned', 'merged'):.2f} |")


if __name__ == "__main__":
    main()
