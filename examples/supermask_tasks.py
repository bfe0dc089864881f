"""Three tasks over one random network that never learns a weight: each task is a mask.

The tasks are scikit-learn's digits upright, turned by 90 degrees, and upside down. Needs
scikit-learn.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import maskedconv
from maskedconv import methods
from maskedconv.supermasks import Supermasks

EPOCHS, BATCH = 4, 50
TURNS = {"upright": 0, "turned": 1, "upside down": 2}


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 16, 10, bias=False),
    )
    method = methods.supermask(k=0.5, weights="signed_constant")
    return maskedconv.convert_(model, method=method, seed=0)


def train(model: nn.Module, digits: maskedconv.data.Dataset, turns: int) -> None:
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=1e-2)
    for epoch in range(EPOCHS):
        for images, labels in maskedconv.data.train_batches(digits, BATCH, seed=0, epoch=epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(images.rot90(turns, (2, 3))), labels).backward()
            optimizer.step()


@torch.inference_mode()
def accuracy(model: nn.Module, digits: maskedconv.data.Dataset, turns: int) -> float:
    batches = maskedconv.data.test_batches(digits, 500)
    right = [
        (model(images.rot90(turns, (2, 3))).argmax(1) == labels).float()
        for images, labels in batches
    ]
    return torch.cat(right).mean().item()


def main() -> None:
    digits, model = maskedconv.data.load("digits"), network()
    tasks = Supermasks(model)
    for name, turns in TURNS.items():
        tasks.reset_scores(torch.Generator().manual_seed(turns))
        train(model, digits, turns)
        tasks.add(name)
    print(f"masks keep {maskedconv.count_kept(model)}")
    for name, turns in TURNS.items():
        tasks.switch(name)
        others = [accuracy(model, digits, t) for t in TURNS.values() if t != turns]
        print(
            f"{name}: {accuracy(model, digits, turns):.1%} on its digits, at most "
            f"{max(others):.1%} on others; {tasks.nbytes(name) / 1024:.1f} KiB"
        )


if __name__ == "__main__":
    main()
