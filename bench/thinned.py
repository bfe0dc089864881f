"""Savings of thin() in evaluation: ``python -m bench.thinned`` prints a Markdown table.

``--save`` writes it to ``results/thinned.md``.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from bench.results import FOLDER
from bench.timing import ratio, time_together
from maskedconv import convert_, merge_, models, thin

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "resnet_14": partial(models.create, "resnet_14", seed=0),
    "torchvision resnet18": torchvision.models.resnet18,
    "torchvision resnext50_32x4d": torchvision.models.resnext50_32x4d,
    "torchvision densenet121": torchvision.models.densenet121,
    "torchvision mobilenet_v2": torchvision.models.mobilenet_v2,
}
HEAD = """# thin: parameters and time of a forward pass

`python -m bench.thinned --save` on {machine}, torch {torch}, float32, one thread,
batch {batch}, {size}×{size}, `convert_(model, learned={learned}, frozen="zero")`. "Trained"
networks took {steps} steps of SGD (0.1) on noise before the conversion and {steps} after it, so
that the constants differ from zero; "kept" counts constant channels that stay. The time is the
median of the ratios thinned / merged in {rounds} rounds.

| network | state | parameters | thinned | share | kept | time |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learned", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    versions = {"machine": platform.machine(), "torch": torch.__version__}
    text = HEAD.format(**vars(arguments), **versions)
    for name in NETWORKS:
        for state, steps in {"start": 0, "trained": arguments.steps}.items():
            text += _row(name, state, _network(name, arguments, steps), arguments)
    print(text)
    if arguments.save:
        (FOLDER / "thinned.md").write_text(text)


def _network(name: str, arguments: argparse.Namespace, steps: int) -> nn.Module:
    plain = merge_(NETWORKS[name]())
    _train(plain, arguments.batch, steps)
    with warnings.catch_warnings():
        # The classifier is learned in full.
        warnings.simplefilter("ignore")
        model = convert_(plain, learned=arguments.learned, frozen="zero")
    _train(model, arguments.batch, steps)
    return model.eval()


def _train(model: nn.Module, batch: int, steps: int) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(batch, 3, 32, 32)), torch.randint(10, [batch])).backward()
        optimizer.step()


@torch.no_grad()
def _row(name: str, state: str, model: nn.Module, arguments: argparse.Namespace) -> str:
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    thinned, report = thin(model, images[:1, :, :32, :32])
    runs = {"merged": partial(merge_(model), images), "thinned": partial(thinned, images)}
    time = ratio(time_together(runs, "cpu", arguments.rounds), "thinned", "merged")
    before, after = report.parameters
    kept = sum(report.kept.values())
    cells = (name, state, f"{before:,}", f"{after:,}", f"{after / before:.3f}", kept, f"{time:.2f}")
    return f"| {' | '.join(map(str, cells))} |\n"


if __name__ == "__main__":
    main()
