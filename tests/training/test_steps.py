"""The steps of a training: those of the plain optimizer, and what is counted of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from killed_runs import small_dataset
from torch import nn
from torch.nn import functional as F

from maskedconv.optim import make_scheduler
from maskedconv.training.config import TrainingConfig
from maskedconv.training.loop import train
from maskedconv.training.state import Position


@pytest.fixture(scope="module")
def whole():
    """The 80 training images without augmentation, so that they can be one known batch."""
    return replace(small_dataset(), crop_padding=0, flip=False)


def normalised(dataset):
    return (dataset.train_images.float() / 255 - 0.4) / 0.2


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def run(model, dataset, **changes):
    settings = {
        "epochs": 3, "batch_size": 80, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0,
        "milestones": (), "gamma": 0.1, **changes,
    }  # fmt: skip
    return train(model, dataset, TrainingConfig(**settings))


@pytest.mark.parametrize("nesterov", [False, True])
def test_every_step_is_that_of_torchs_sgd(whole, nesterov):
    """Momentum shows from the second step on."""
    model, by_hand = network(), network()
    settings = {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.01, "nesterov": nesterov}
    run(model, whole, **settings)
    optimizer = torch.optim.SGD(by_hand.parameters(), **settings)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(by_hand(normalised(whole)), whole.train_labels).backward()
        optimizer.step()
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_accuracy_in_training_is_that_before_the_update(whole):
    right = network()(normalised(whole)).argmax(1) == whole.train_labels
    (epoch,) = run(network(), whole, epochs=1, lr=0.5).epochs
    assert epoch.train_top1 == pytest.approx(100 * right.double().mean().item())


def test_the_time_of_a_begun_epoch_counts():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = make_scheduler("step", optimizer, 1, (), 0.1)
    first, second = (Position(model, optimizer, scheduler, torch.device("cpu")) for _ in range(2))
    second.restore({**first.state(), "seconds": 1e6})
    assert second.seconds >= 1e6
