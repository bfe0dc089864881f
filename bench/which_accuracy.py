"""Accuracy of a fine-tuned network by what it learns: ``python -m bench.which_accuracy``.

A small network learns the digits 0 to 4 of scikit-learn's scans. Then a part of its filters and a
new head learn 5 to 9 from a few images of each. The same seed gives all choices the same start and
the same images. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv import convert_, fisher_information, merge_

CHOICES = ("first", "last", "largest", "smallest", "random", "fisher")
HEAD = "11"
Task = tuple[Tensor, Tensor]


def network() -> nn.Sequential:
    sizes, layers = (1, 32, 64, 64), list[nn.Module]()
    for before, after in pairwise(sizes):
        conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 5))


def digits(labels: range) -> Task:
    """The scans of five digits in a random order, and their classes from 0 to 4."""
    data = load_digits()
    images, targets = torch.tensor(data.images).float() / 8 - 1, torch.tensor(data.target)
    own = (targets >= labels.start) & (targets < labels.stop)
    order = torch.randperm(int(own.sum()))
    return images[own].unsqueeze(1)[order], targets[own][order] - labels.start


def train(model: nn.Module, task: Task, epochs: int) -> None:
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.02, momentum=0.9, nesterov=True)
    images, targets = task
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(images[chosen]), targets[chosen]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, task: Task) -> float:
    return 100 * float((model.eval()(task[0]).argmax(1) == task[1]).float().mean())


def accuracies(seed: int, learned: float, images: int, epochs: int) -> dict[str, float]:
    """Test accuracy in percent by choice."""
    torch.manual_seed(seed)
    start = network()
    train(start, digits(range(5)), epochs)
    inputs, targets = digits(range(5, 10))
    few = torch.cat([(targets == label).nonzero()[:images, 0] for label in range(5)])
    rest = torch.ones(len(targets), dtype=torch.bool).index_fill(0, few, False)
    own, test = (inputs[few], targets[few]), (inputs[rest], targets[rest])
    convert_(start, learned=0, norm="frozen", head=HEAD, rest="freeze")
    start.get_submodule(HEAD).reset_parameters()
    train(start, own, epochs)
    found = {"head alone": accuracy(start, test)}
    merge_(start).requires_grad_(True)
    examples = [(own[0][i : i + 1], own[1][i : i + 1]) for i in range(len(few))]
    fisher = fisher_information(start, examples, F.cross_entropy)
    for choice in CHOICES:
        which = fisher if choice == "fisher" else choice
        model = copy.deepcopy(start)
        convert_(
            model, learned=learned, which=which, seed=seed, norm="frozen", head=HEAD, rest="freeze"
        )
        torch.manual_seed(seed)
        train(model, own, epochs)
        found[choice] = accuracy(model, test)
    train(start.train(), own, epochs)
    return {**found, "everything": accuracy(start, test)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learned", type=float, nargs="+", default=(0.1, 0.25))
    parser.add_argument("--images", type=int, default=10, help="of each class")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    titles = ("head alone", *CHOICES, "everything")
    print(f"| learned | {' | '.join(titles)} |\n|---{'|---' * len(titles)}|")
    for learned in arguments.learned:
        runs = [
            accuracies(seed, learned, arguments.images, arguments.epochs)
            for seed in range(arguments.seeds)
        ]
        columns = [[run[title] for run in runs] for title in titles]
        cells = (f"{statistics.mean(c):.1f} ± {statistics.stdev(c):.1f}" for c in columns)
        print(f"| {learned} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
