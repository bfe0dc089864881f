"""Three tasks over one random network that never learns a weight: each task is a mask.

The tasks are scikit-learn's digits with their pixels in three orders. One gradient step names the
task of images without labels. Needs scikit-learn.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import maskedconv
from maskedconv import methods
from maskedconv.supermasks import Supermasks

EPOCHS, BATCH, INFERRED = 4, 50, 32
TASKS = ("first order", "second order", "third order")


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 256, bias=False),
        nn.ReLU(),
        nn.Linear(256, 256, bias=False),
        nn.ReLU(),
        nn.Linear(256, 10, bias=False),
    )
    method = methods.supermask(k=0.5, weights="signed_constant")
    return maskedconv.convert_(model, method=method, seed=0)


def ordered(images: Tensor, task: int) -> Tensor:
    """``images [N, 1, 8, 8]`` with their pixels in the order of a task."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(task))
    return images.flatten(2)[..., order].view_as(images)


def train(model: nn.Module, digits: maskedconv.data.Dataset, task: int) -> None:
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=1e-2)
    for epoch in range(EPOCHS):
        for images, labels in maskedconv.data.train_batches(digits, BATCH, seed=0, epoch=epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(ordered(images, task)), labels).backward()
            optimizer.step()


@torch.inference_mode()
def accuracy(model: nn.Module, digits: maskedconv.data.Dataset, task: int) -> float:
    batches = maskedconv.data.test_batches(digits, 500)
    right = [
        (model(ordered(images, task)).argmax(1) == labels).float() for images, labels in batches
    ]
    return torch.cat(right).mean().item()


def inferred(tasks: Supermasks, digits: maskedconv.data.Dataset, task: int) -> float:
    """Share of the batches of a task that are found to be of it."""
    batches = maskedconv.data.test_batches(digits, INFERRED)
    found = [tasks.infer(ordered(images, task)) for images, _ in batches]
    return found.count(TASKS[task]) / len(found)


def main() -> None:
    digits, model = maskedconv.data.load("digits"), network()
    tasks = Supermasks(model)
    for task, name in enumerate(TASKS):
        tasks.reset_scores(torch.Generator().manual_seed(task))
        train(model, digits, task)
        tasks.add(name)
    print(f"masks keep {maskedconv.count_kept(model)}")
    for task, name in enumerate(TASKS):
        tasks.switch(name)
        own, *others = [
            accuracy(model, digits, other)
            for other in sorted(range(3), key=lambda one: one != task)
        ]
        print(
            f"{name}: {own:.1%} on its digits, at most {max(others):.1%} on others; "
            f"{tasks.nbytes(name) / 1024:.1f} KiB; {inferred(tasks, digits, task):.0%} of its "
            f"batches of {INFERRED} recognised"
        )


if __name__ == "__main__":
    main()
