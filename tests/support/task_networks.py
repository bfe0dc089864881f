"""Small networks of every method with two tasks of different values."""

from __future__ import annotations

import torch
from torch import nn

from maskedconv import Tasks, convert_, methods

METHODS = {
    "slice": methods.slice(0.25),
    "last": methods.slice(0.25, which="last"),
    "channels": methods.slice(0.25, slice_dim=1),
    "zero": methods.slice(0.25, frozen="zero"),
    "norm_only": methods.norm_only(),
    "random_positions": methods.random_positions(500),
    "supermask": methods.supermask(),
    "global": methods.supermask(threshold="global"),
    "coats": methods.supermask(coats=3),
    "biprop": methods.biprop(),
}


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.Flatten(),
        nn.Linear(64, 5, bias=False),
    )


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 6, 6)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(images()).square().mean().backward()
        optimizer.step()


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.5, momentum=0.9)


def two_tasks(method: str, head: str | None = None, *, trained: bool = True) -> Tasks:
    """Tasks "a" and "b", with "b" active; if ``trained``, each is trained separately."""
    torch.manual_seed(0)
    tasks = Tasks(convert_(network(), method=METHODS[method], rest="learn", seed=0), head=head)
    for name in "ab":
        tasks.add(name)
        if trained:
            train(tasks, optimizer_of(tasks.model))
    return tasks.eval()
