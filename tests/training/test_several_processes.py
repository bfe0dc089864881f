"""Three processes that train one network together get what one process gets."""

from __future__ import annotations

import copy
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from killed_runs import small_dataset
from precision import assert_as_exact, rms_error
from torch import nn
from two_processes import Traffic, in_processes

from maskedconv import convert_, methods
from maskedconv.data import Dataset
from maskedconv.data.share import Share
from maskedconv.nn.frozen_statistics import freeze_statistics_
from maskedconv.training.checkpoint import Checkpoint
from maskedconv.training.config import TrainingConfig
from maskedconv.training.evaluation import evaluate
from maskedconv.training.history import Diverged
from maskedconv.training.interrupts import noted
from maskedconv.training.loop import train

COUNT = 3
# 80 images: ten batches of 8 cannot be split evenly, and batches of 37 leave one of 6 images, two
# for each process; fewer would join the batch before, which one process does not do.
CONFIG = TrainingConfig(
    epochs=2, batch_size=8, lr=0.05, momentum=0.9, weight_decay=1e-3, milestones=(1,), gamma=0.1,
    seed=3, processes=COUNT,
)  # fmt: skip
BF16 = replace(CONFIG, amp="bf16")
CONFIGS = {
    "sgd": CONFIG,
    "short last batch": replace(CONFIG, batch_size=37),
    "adam": replace(CONFIG, optimizer="adam", lr=1e-3),
    "yellowfin": replace(CONFIG, optimizer="yellowfin", momentum=0.0),
}
METHODS = {
    "slice": methods.slice(0.25),
    "random_positions": methods.random_positions(40),
    "rerandomised": methods.supermask(k=0.3, rerandomise_every=3),
    "shared_threshold": methods.supermask(k=0.3, threshold="global"),
    "biprop": methods.biprop(k=0.3),
}
CASES = {
    **{name: ("slice", config) for name, config in CONFIGS.items()},
    **{f"sgd, {name}": (name, CONFIG) for name in METHODS if name != "slice"},
    "compiled": ("slice", replace(CONFIG, compile=True)),
}


class Doubled(Dataset):
    """Images in float64, so that rounding is small against every mistake."""

    def train_batches(self, *args, **kwargs):
        for images, labels in super().train_batches(*args, **kwargs):
            yield images.double(), labels

    def test_batches(self, batch_size):
        return ((images.double(), labels) for images, labels in super().test_batches(batch_size))


def dataset(rank=None):
    whole = Doubled(**vars(small_dataset()))
    return whole if rank is None else whole.shared(Share(rank, COUNT))


def network(method="slice", norm=None, dropout=0.0):
    """Two convolutions with a norm between them, by default of fixed statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False), norm or fixed_norm(), nn.ReLU(),
            nn.Identity(), nn.Conv2d(6, 8, 3, bias=False), nn.ReLU(), nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip
    return convert_(plain.double(), method=METHODS[method], seed=1, include=["0", "4"])


def fixed_norm():
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    freeze_statistics_(norm)
    return norm


def trained(method, config, images, **options):
    """State and history of a network after training."""
    model = network(method, **options)
    # The graphs of torch.compile run as they are: generating code for them would take longer.
    with patch.object(torch, "compile", partial(torch.compile, backend="eager")):
        history = train(model, images, config)
    return copy.deepcopy(model.state_dict()), without_time(history)


def moved(images, config, dtype):
    """How far training moves all learned values, as one vector."""
    model = network().to(dtype)
    start = copy.deepcopy(model)
    train(model, images, config)
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    return torch.cat([(after - before).detach().flatten() for after, before in pairs])


def without_time(history):
    return [replace(epoch, seconds=0.0) for epoch in history.epochs]


def signalled(images, method, batch):
    """``images`` that interrupt this process before a batch."""
    plain = getattr(images, method)

    def batches(*args, **kwargs):
        for index, one in enumerate(plain(*args, **kwargs)):
            if index == batch:
                os.kill(os.getpid(), signal.SIGINT)
            yield one

    object.__setattr__(images, method, batches)
    return images


def interrupted_twice(rank, folder):
    """Stopped by one process amid an epoch, then by another one amid an evaluation."""
    options = {"norm": nn.BatchNorm2d(6), "dropout": 0.3}
    torch.manual_seed(rank)
    whole = trained("slice", CONFIG, dataset(rank), **options)

    def start(images):
        torch.manual_seed(rank)
        checkpoint = Checkpoint(folder / "run.pt", {}, 1000) if rank == 0 else None
        model = network("slice", norm=nn.BatchNorm2d(6), dropout=0.3)
        with noted():
            history = train(model, images, CONFIG, checkpoint=checkpoint)
        return model.state_dict(), without_time(history)

    for stopped_by, method, batch in ((1, "train_batches", 3), (0, "test_batches", 0)):
        images = dataset(rank)
        with pytest.raises(KeyboardInterrupt):
            start(signalled(images, method, batch) if rank == stopped_by else images)
    return whole, start(dataset(rank))


def diverged(rank):
    with pytest.raises(Diverged) as error:
        train(network(), dataset(rank), replace(CONFIG, lr=1e30, epochs=5))
    return str(error.value)


def one_batch_with_local_norms(rank):
    model = network(norm=nn.BatchNorm2d(6))
    train(model, dataset(rank), replace(CONFIG, batch_size=80, epochs=1))
    return model[1].running_mean


def work(rank, folder):
    # Tests in the background of a script inherit an ignored Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Traffic() as traffic:
        first = trained("slice", CONFIG, dataset(rank))
    return {
        "cases": {name: trained(*case, dataset(rank)) for name, case in CASES.items()},
        "first": first,
        "bf16": moved(small_dataset().shared(Share(rank, COUNT)), BF16, torch.float32),
        "traffic": traffic.bytes,
        "resumed": interrupted_twice(rank, Path(folder)),
        "diverged": diverged(rank),
        "norms": one_batch_with_local_norms(rank),
        "evaluated": evaluate(network(), dataset(rank), batch_size=7),
        "refused": refused(rank),
    }


def refused(rank):
    with pytest.raises(ValueError, match="expected a process group of 2, not 3") as error:
        train(network(), dataset().shared(Share(0, 2)), CONFIG)
    return str(error.value)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    return in_processes(COUNT, work, folder, str(folder))


def assert_same(one, other):
    torch.testing.assert_close(one[0], other[0])
    for epoch, its in zip(one[1], other[1], strict=True):
        assert vars(epoch) == pytest.approx(vars(its))


@pytest.mark.parametrize("name", CASES)
def test_as_one_process(results, name):
    alone = trained(*CASES[name], dataset())
    for result in results:
        assert_same(result["cases"][name], alone)


def test_in_bfloat16_as_near_to_float64_as_one_process(results):
    alone, exact = (
        moved(small_dataset(), BF16, torch.float32),
        moved(dataset(), CONFIG, torch.double),
    )
    for found in (alone, *(result["bf16"] for result in results)):
        assert rms_error(found, exact) > 100 * torch.finfo(torch.float32).eps  # autocast rounds
        assert_as_exact([found], [alone], [exact], measure=rms_error, dtype=torch.bfloat16)


def test_all_processes_hold_the_same_bits(results):
    for name in CASES:
        states = [result["cases"][name][0] for result in results]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
        assert all(torch.equal(value, states[2][key]) for key, value in states[0].items())


def test_frozen_values_do_not_move(results):
    state, start = results[0]["first"][0], network()
    for index in (0, 4):
        (name,) = (key for key in start[index].frozen_buffers() if f"{index}.{key}" in state)
        assert torch.equal(state[f"{index}.{name}"], getattr(start[index], name))
    for key in ("1.running_mean", "1.running_var"):
        assert torch.equal(state[key], start.state_dict()[key])


def test_only_gradients_are_sent_in_a_step(results):
    learned = sum(p.nbytes for p in network().parameters() if p.requires_grad)
    steps, epochs = 10 * CONFIG.epochs, CONFIG.epochs
    for result in results:
        rest = result["traffic"]["allreduce_"] - steps * learned
        # Sums of loss, right examples, examples and terms, of training and test, and a flag.
        assert rest == epochs * (32 + 32 + 8)


def test_stopped_training_resumes(results):
    for result in results:
        (state, history), (again, its) = result["resumed"]
        # DDP orders its buckets anew after the first step of a process, which changes the order in
        # which gloo sums over three processes.
        assert_same((again, its), (state, history))


def test_all_diverge(results):
    assert len({result["diverged"] for result in results}) == 1


def test_running_statistics_are_the_mean_of_all_processes(results):
    model, images = network(norm=nn.BatchNorm2d(6)), dataset()
    inputs, _ = next(images.train_batches(80, CONFIG.seed, 1))
    outputs = model[0](inputs).detach()
    parts = [outputs[slice(*Share(rank, COUNT).bounds(0, 80))] for rank in range(COUNT)]
    mean = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
    for result in results:
        torch.testing.assert_close(result["norms"], 0.1 * mean)


def test_evaluation_is_of_all_images(results):
    loss, top1 = evaluate(network(), dataset(), batch_size=7)
    for result in results:
        assert result["evaluated"] == (pytest.approx(loss), top1)


def test_a_share_without_its_group_is_refused(results):
    assert len({result["refused"] for result in results}) == 1
    with pytest.raises(ValueError, match="expected a process group of 3, not 1"):
        train(network(), dataset(0), CONFIG)
    with pytest.raises(ValueError, match="batch_size is 2; expected at least 3"):
        replace(CONFIG, batch_size=2)
