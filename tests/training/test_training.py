"""The training loop: its effects, results and errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskedconv import MaskedConv2d, data
from maskedconv.data import Dataset
from maskedconv.training.config import TrainingConfig
from maskedconv.training.evaluation import evaluate, predict
from maskedconv.training.history import Diverged, Epoch, History
from maskedconv.training.loop import train


@pytest.fixture(scope="module")
def dataset():
    """Bright left half or bright right half: 96 training and 40 test images of 8×8 pixels."""
    generator = torch.Generator().manual_seed(0)

    def part(count):
        labels = torch.arange(count) % 2
        images = torch.randint(0, 120, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
        for image, label in zip(images, labels, strict=True):
            image[:, :, 4 * int(label) : 4 * int(label) + 4] += 120
        return images, labels

    train_images, train_labels = part(96)
    test_images, test_labels = part(40)
    return Dataset(
        name="halves",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=("left", "right"),
        mean=(0.5,),
        std=(0.25,),
        crop_padding=1,
        flip=False,
        note="",
    )


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        MaskedConv2d(1, 8, 3, padding=1, learned=0.5),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 2),
    )


def run(model, dataset, **changes):
    others = ("on_epoch", "checkpoint")
    options = {name: changes.pop(name) for name in others if name in changes}
    settings = {
        "epochs": 3, "batch_size": 32, "lr": 0.02, "momentum": 0.9, "weight_decay": 0.0,
        "milestones": (), "gamma": 0.1, **changes,
    }  # fmt: skip
    return train(model, dataset, TrainingConfig(**settings), **options)


def test_learns_and_reports_every_epoch(dataset):
    told = []
    history = run(network(), dataset, epochs=5, on_epoch=told.append)
    assert told == history.epochs
    assert [epoch.epoch for epoch in told] == [1, 2, 3, 4, 5]
    assert history.last_top1 > 90
    assert told[-1].train_loss < told[0].train_loss
    assert all(epoch.seconds > 0 for epoch in told)


def test_only_what_requires_a_gradient_moves(dataset):
    model = network()
    model[4].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, dataset, weight_decay=0.1)
    moved = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert {"0.learned", "1.weight", "1.bias", "1.running_mean", "0.bias_learned"} <= moved
    still = {name for name in before if "frozen" in name} | {"4.weight", "4.bias"}
    assert len(still) == 4
    assert not moved & still


def test_same_seed_same_numbers_whatever_came_before(dataset):
    first = run(network(), dataset, seed=3)
    torch.rand(17)
    again = run(network(), dataset, seed=3)
    other = run(network(), dataset, seed=4)

    def losses(history):
        return [(epoch.train_loss, epoch.test_loss) for epoch in history.epochs]

    assert losses(first) == losses(again)
    assert losses(first) != losses(other)


def test_first_step_is_that_of_plain_sgd(dataset):
    """With one batch of all images, the parameters equal those of torch.optim.SGD by hand."""
    whole = Dataset(**{**vars(dataset), "crop_padding": 0})
    model, by_hand = network(), network()
    history = run(model, whole, epochs=1, batch_size=96, lr=0.1, weight_decay=0.01)
    images = (whole.train_images.float() / 255 - 0.5) / 0.25
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1, weight_decay=0.01)
    loss = F.cross_entropy(by_hand(images), whole.train_labels)
    loss.backward()
    optimizer.step()
    assert history.epochs[0].train_loss == pytest.approx(loss.item(), rel=1e-5)
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({}, [0.1, 0.1, 0.1, 0.1]),
        ({"milestones": (1, 3), "gamma": 0.2}, [0.1, 0.02, 0.02, 0.004]),
        ({"milestones": (60,)}, [0.1, 0.1, 0.1, 0.1]),
        ({"schedule": "cosine"}, [0.1 * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]),
        ({"warmup": 3}, [0.025, 0.05, 0.075, 0.1]),
    ],
)
def test_learning_rate_of_each_epoch(dataset, changes, rates):
    history = run(network(), dataset, epochs=4, lr=0.1, **changes)
    assert [epoch.lr for epoch in history.epochs] == pytest.approx(rates)


def test_evaluation_is_of_the_whole_test_set(dataset):
    model = network().train()
    loss, top1 = evaluate(model, dataset, batch_size=7)
    images = torch.cat([x for x, _ in data.test_batches(dataset, 40)])
    logits = model.eval()(images)
    assert loss == pytest.approx(F.cross_entropy(logits, dataset.test_labels).item(), rel=1e-5)
    right = (logits.argmax(1) == dataset.test_labels).sum().item()
    assert top1 == 100 * right / 40


def test_predictions_are_the_softmax_of_the_test_set(dataset):
    model = network()
    probabilities = predict(model, dataset, batch_size=7)
    images = torch.cat([x for x, _ in data.test_batches(dataset, 40)])
    torch.testing.assert_close(probabilities, model.eval()(images).softmax(1))
    assert not probabilities.requires_grad


@pytest.mark.parametrize("name", ["adam", "yellowfin"])
def test_other_optimizers_learn_and_leave_the_frozen_part(dataset, name):
    model = network()
    frozen = model[0].frozen.clone()
    lr = {"adam": 0.01, "yellowfin": 0.1}[name]
    momentum = {"adam": 0.9, "yellowfin": 0.0}[name]
    history = run(model, dataset, epochs=15, lr=lr, momentum=momentum, optimizer=name)
    assert history.last_top1 > 90
    assert torch.equal(model[0].frozen, frozen)


def test_adam_is_torchs(dataset):
    model, by_hand = network(), network()
    whole = Dataset(**{**vars(dataset), "crop_padding": 0})
    settings = {"lr": 0.01, "weight_decay": 0.1}
    run(model, whole, epochs=1, batch_size=96, momentum=0.9, optimizer="adam", **settings)
    optimizer = torch.optim.Adam(by_hand.parameters(), betas=(0.9, 0.999), **settings)
    images = (whole.train_images.float() / 255 - 0.5) / 0.25
    F.cross_entropy(by_hand(images), whole.train_labels).backward()
    optimizer.step()
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_bfloat16_trains_and_keeps_float32_weights(dataset):
    model = network()
    history = run(model, dataset, epochs=5, amp="bf16")
    assert history.last_top1 > 90
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_divergence_names_the_epoch_and_keeps_the_others(dataset):
    model = network()

    def poison(epoch):
        if epoch.epoch == 2:
            nn.init.constant_(model[4].bias, math.inf)

    with pytest.raises(Diverged, match="not finite in epoch 3") as caught:
        run(model, dataset, epochs=5, on_epoch=poison)
    assert caught.value.epoch == 3
    assert [epoch.epoch for epoch in caught.value.history.epochs] == [1, 2]


def test_a_value_that_is_not_finite_is_divergence_though_the_losses_are(dataset):
    model = network()
    model.register_buffer("statistic", torch.zeros(2))
    model.register_parameter("unused", nn.Parameter(torch.zeros(2)))

    def poison(epoch):
        model.statistic[1] = -math.inf

    with pytest.raises(Diverged, match=r"^statistic is not finite in epoch 2$"):
        run(model, dataset, epochs=3, on_epoch=poison)
    model.statistic.zero_()
    model.unused.data[0] = math.nan
    with pytest.raises(Diverged, match=r"^unused is not finite in epoch 1$") as caught:
        run(model, dataset, epochs=3)
    assert caught.value.history.epochs == []


def test_a_test_loss_that_is_not_finite_is_divergence(dataset):
    class OnlyTrains(nn.Module):
        def forward(self, x):
            return x if self.training else x * math.inf

    with pytest.raises(Diverged, match=r"^the test loss is not finite in epoch 1$"):
        run(nn.Sequential(network(), OnlyTrains()), dataset, epochs=2)


def test_best_is_the_first_of_the_best():
    tops = [10.0, 50.0, 50.0, 40.0]
    history = History([Epoch(n, 1, 1, 1, top, 1, 1) for n, top in enumerate(tops, start=1)])
    assert (history.best.epoch, history.best.test_top1, history.last_top1) == (2, 50.0, 40.0)
    assert (History().best, History().last_top1) == (None, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; expected one of sgd, adam, yellowfin"),
        ({"schedule": "linear"}, "schedule is 'linear'; expected one of step, cosine"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments_are_named(dataset, changes, words):
    with pytest.raises(ValueError, match=words):
        run(network(), dataset, **changes)


def test_nothing_to_learn_is_an_error(dataset):
    with pytest.raises(ValueError, match="nothing can be learned"):
        run(network().requires_grad_(False), dataset)


@pytest.mark.parametrize(
    ("changes", "timed"),
    [
        ({}, True),
        ({"deterministic": True}, False),
        ({"deterministic": True, "benchmark": True}, True),
        ({"enabled": False, "allow_tf32": False}, True),
    ],
    ids=["default", "deterministic", "both", "disabled"],
)
def test_training_changes_only_the_benchmark_of_cudnn(dataset, monkeypatch, changes, timed):
    names = ("enabled", "deterministic", "allow_tf32", "benchmark")
    cudnn = torch.backends.cudnn

    def settings():
        return {name: getattr(cudnn, name) for name in names}

    for name in names:
        monkeypatch.setattr(cudnn, name, changes.get(name, getattr(cudnn, name)))
    model, before, seen = network(), settings(), []
    model.register_forward_hook(lambda *_: seen.append(settings()))
    run(model, dataset, epochs=1)
    assert all(one == {**before, "benchmark": timed} for one in seen)
    assert len(seen) > 1
    assert settings() == before


def test_deterministic_algorithms_are_not_timed(dataset):
    model, seen = network(), []
    model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    torch.use_deterministic_algorithms(True)
    try:
        run(model, dataset, epochs=1)
    finally:
        torch.use_deterministic_algorithms(False)
    assert not any(seen)


def test_training_leaves_the_precision_of_cudnn(dataset):
    """PyTorch refuses the older settings once a newer one is set."""
    conv, model, seen = torch.backends.cudnn.conv, network(), []
    model.register_forward_hook(lambda *_: seen.append(conv.fp32_precision))
    before, conv.fp32_precision = conv.fp32_precision, "ieee"
    try:
        run(model, dataset, epochs=1)
    finally:
        conv.fp32_precision = before
    assert set(seen) == {"ieee"}
