"""The captured training step equals the eager one to the bit, with stand-ins for CUDA graphs."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import recorders
import torch
from host_reads import HostReads
from recorders import Rerun, Tape, take_the_place
from torch import nn
from torch.optim import Adam, adam

from maskedconv import MaskedConv2d
from maskedconv.data import Dataset
from maskedconv.optim import factory
from maskedconv.training import loop
from maskedconv.training.captured_step import WARM_UP
from maskedconv.training.config import TrainingConfig
from maskedconv.training.history import Diverged
from maskedconv.training.loop import train

IMAGES, BATCH, FULL = 44, 8, 5  # 5 batches of 8, and one of 4
SETTINGS = {
    "sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True},
    "adam": {"optimizer": "adam", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3},
    "yellowfin": {"optimizer": "yellowfin", "lr": 0.05, "momentum": 0.0, "weight_decay": 1e-3},
}


@pytest.fixture(scope="module")
def dataset():
    generator = torch.Generator().manual_seed(0)

    def part(count):
        images = torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=generator)
        return images, torch.arange(count) % 3

    (images, labels), (others, their_labels) = part(IMAGES), part(9)
    return Dataset(
        name="noise", train_images=images, train_labels=labels, test_images=others,
        test_labels=their_labels, classes=("a", "b", "c"), mean=(0.5,), std=(0.25,),
        crop_padding=1, flip=True, note="",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _recorded(monkeypatch):
    """Operators of PyTorch alone, which the tape records."""
    monkeypatch.setenv("MASKEDCONV_BACKEND", "reference")


@pytest.fixture
def capturing(monkeypatch):
    """Has a stand-in take the place of CUDA graphs."""
    return partial(take_the_place, monkeypatch)


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        MaskedConv2d(1, 6, 3, padding=1, learned=0.5),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(216, 3),
    )


def config(name="sgd", **changes):
    rest = {"epochs": 3, "batch_size": BATCH, "milestones": (2,), "gamma": 0.1}
    return TrainingConfig(**{**rest, **SETTINGS[name], **changes})


def bits(value):
    """Tensors as bytes, so that equal means equal to the bit."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, tuple(value.shape), value.detach().cpu().numpy().tobytes())
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items() if key != "seconds"}
    return [bits(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.fixture
def states(monkeypatch):
    """The complete state after every batch of the trainings that follow, as bits."""
    found = []

    def noting(position):
        found.append(bits(position.state()))

    plain = loop._train_epoch

    def watched(take, position, *rest):
        def counting(images, labels):
            if position.batch:
                noting(position)
            return take(images, labels)

        plain(counting, position, *rest)
        noting(position)

    monkeypatch.setattr(loop, "_train_epoch", watched)
    return found


def train_twice(dataset, capturing, states, recorder, run):
    """Trains eagerly and captured; returns the states of both."""
    train(network(), dataset, run)
    eager = states.copy()
    states.clear()
    capturing(recorder)
    torch.rand(7)
    train(network(), dataset, run, graph="on")
    return eager, states


@pytest.mark.parametrize("recorder", [Rerun, Tape])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"milestones": (), "schedule": "cosine"},
        {"amp": "bf16"},
        {"batch_size": IMAGES},
        {"batch_size": IMAGES + 1},
        {"batch_size": 43},
        {"momentum": 0.0, "nesterov": False, "milestones": (1, 2)},
    ],
    ids=str,
)
def test_every_batch_is_that_of_eager_steps(changes, recorder, dataset, capturing, states):
    """Parameters, running statistics, optimizer, schedule, random generator, sums, history."""
    run = config(**changes)
    eager, captured = train_twice(dataset, capturing, states, recorder, run)
    assert len(eager) == 3 * math.ceil(IMAGES / run.batch_size - (run.batch_size == 43))
    assert captured == eager


def test_adam_is_captured_where_it_counts_on_the_device(dataset, capturing, states, monkeypatch):
    """Adam does so on CUDA; PyTorch would refuse this on a CPU."""
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda *arguments: ["cpu"])

    def on_device(*arguments, **options):
        return Adam(*arguments, **{**options, "capturable": True})

    monkeypatch.setattr(factory, "Adam", on_device)
    eager, captured = train_twice(dataset, capturing, states, Tape, config("adam"))
    assert captured == eager


@pytest.mark.parametrize("name", ["adam", "yellowfin"])
def test_the_tape_shows_optimizers_that_compute_on_the_host(name, dataset, capturing, states):
    eager, captured = train_twice(dataset, capturing, states, Tape, config(name))
    assert captured[WARM_UP - 1] == eager[WARM_UP - 1]
    assert captured[-1] != eager[-1]


@pytest.mark.parametrize(
    ("changes", "records"),
    [
        # The second epoch's is for the peak of memory, the third epoch's for the learning rate.
        ({"milestones": (2,)}, 3),
        ({"milestones": ()}, 2),
        ({"milestones": (), "epochs": 1}, 1),
        ({"milestones": (), "schedule": "cosine", "epochs": 5}, 5),
    ],
)
def test_captured_once_and_again_for_another_learning_rate(changes, records, dataset, capturing):
    capturing(Rerun)
    run = config(**changes)
    train(network(), dataset, run, graph="on")
    (made,) = recorders.made
    assert made.warm_ups == WARM_UP
    assert made.records == records
    # The smaller batch of every epoch is eager.
    assert made.replays == run.epochs * FULL - WARM_UP


def test_a_capture_executes_nothing(dataset, capturing, monkeypatch):
    """The tape's own promise, on which the tests above rest."""
    capturing(Tape)
    record, compared = Tape.record, []

    def watched(self, function):
        before = bits([copy.deepcopy(model.state_dict()), torch.get_rng_state()])
        replay = record(self, function)
        compared.append(before == bits([model.state_dict(), torch.get_rng_state()]))
        return replay

    monkeypatch.setattr(Tape, "record", watched)
    model = network()
    train(model, dataset, config(), graph="on")
    assert compared == [True, True, True]


class Memory:
    """A checkpoint that ends the training after some batches, and hands the state to the next."""

    def __init__(self, stop_after=None, state=None):
        self.state, self._stop_after, self._asked = state, stop_after, 0

    def take(self):
        return self.state

    def due(self):
        # The loop asks after every batch, at the end of an epoch once the epoch is over.
        self._asked += 1
        return self._asked == self._stop_after

    def write(self, state):
        self.state = copy.deepcopy(state)
        raise KeyboardInterrupt


@pytest.mark.parametrize("batches", [1, 2, 4, 5, 6, 9, 17])
def test_a_resumed_training_is_that_of_an_uninterrupted_one(batches, dataset, capturing, states):
    """It resumes before the capture, after it, in an epoch, or in the last one."""
    capturing(Tape)
    train(network(), dataset, config(), graph="on")
    whole = states.copy()
    states.clear()
    memory = Memory(stop_after=batches)
    with pytest.raises(KeyboardInterrupt):
        train(network(), dataset, config(), graph="on", checkpoint=memory)
    torch.rand(3)
    train(network(), dataset, config(), graph="on", checkpoint=Memory(state=memory.state))
    assert states == whole


def test_divergence_is_found_in_the_same_epoch(dataset, capturing):
    def poison(epoch):
        if epoch.epoch == 2:
            nn.init.constant_(model[5].bias, math.inf)

    capturing(Tape)
    model = network()
    with pytest.raises(Diverged, match="the training loss is not finite in epoch 3") as caught:
        train(model, dataset, config(epochs=5), graph="on", on_epoch=poison)
    assert len(caught.value.history.epochs) == 2


def test_no_step_waits_for_the_device(dataset, capturing):
    def waits(graph, epochs):
        with HostReads() as counted:
            train(network(), dataset, config(epochs=epochs), graph=graph)
        return counted.count

    capturing(Rerun)
    assert waits("on", 3) - waits("on", 2) == waits("off", 3) - waits("off", 2) > 0
    assert waits("on", 2) == waits("off", 2)


def test_a_network_that_waits_is_trained_eagerly(dataset, capturing, states, monkeypatch, capsys):
    train(network(), dataset, config())
    eager = states.copy()
    states.clear()
    capturing(Rerun)
    monkeypatch.setattr(Rerun, "waits", "net.py:7")
    train(network(), dataset, config(), graph="auto")
    assert states == eager
    (made,) = recorders.made
    assert (made.warm_ups, made.records) == (WARM_UP, 0)
    line = "the training steps are not captured in a CUDA graph: the step waits for the device at"
    assert capsys.readouterr().err == f"note: {line} net.py:7\n"
    with pytest.raises(RuntimeError, match=r"graph is 'on', but the step waits .* at net\.py:7"):
        train(network(), dataset, config(), graph="on")


def test_a_step_that_cannot_be_captured_is_named(dataset, capturing, monkeypatch):
    def refuse(self, function):
        raise RuntimeError("operation not permitted when stream is capturing")

    capturing(Rerun)
    monkeypatch.setattr(Rerun, "record", refuse)
    words = r"cannot be captured in a CUDA graph \(operation not permitted.*expected graph 'off'"
    with pytest.raises(RuntimeError, match=words):
        train(network(), dataset, config(), graph="auto")


def test_auto_on_a_cpu_is_eager_and_silent(dataset, capsys):
    train(network(), dataset, config(epochs=1), graph="auto")
    assert capsys.readouterr().err == ""


def test_too_few_batches_for_a_capture_are_told(dataset, capturing, capsys):
    capturing(Rerun)
    train(network(), dataset, config(epochs=1, batch_size=15), graph="on")  # two full batches
    assert "the first 3 batches of 15 images are eager, and" in capsys.readouterr().err
