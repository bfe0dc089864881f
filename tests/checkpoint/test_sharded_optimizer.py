"""Sharded checkpoints of optimizers: before the first step, of unused parameters, and refused."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from two_processes import in_two_processes

from maskedconv import YellowFin, convert_, load_sharded, methods, save_sharded

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05),
    "plain_sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "tensor_rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
    # Its state has not the shapes of the parameters.
    "adafactor": lambda p: torch.optim.Adafactor(p),
}


class Network(nn.Module):
    """Two layers, and a head that forward does not use."""

    def __init__(self, width=8):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, 4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, images):
        return self.second(self.first(images).relu())


def network(width=8):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return convert_(Network(width), method=methods.slice(0.5), seed=1)


def backward(model, number):
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(number))
    model(images).square().mean().backward()


def step(model, optimizer, number):
    optimizer.zero_grad()
    backward(model, number)
    optimizer.step()


def full(value):
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def content(model, optimizer):
    """Values of the model and of the optimizer by index, and its settings."""
    packed = optimizer.state_dict()
    state = {
        (index, key): full(value).clone()
        for index, entry in packed["state"].items()
        for key, value in entry.items()
    }
    values = {key: full(value).clone() for key, value in model.state_dict().items()}
    return {**values, **state}, copy.deepcopy(packed["param_groups"])


def same(found, expected):
    assert found[0].keys() == expected[0].keys()
    for key, value in expected[0].items():
        assert torch.equal(found[0][key], value), key
    assert found[1] == expected[1]


def round_trips(make, create, folder):
    """(found, expected) of checkpoints before and after the first step."""
    pairs = {}

    def load(key, gradients):
        other = make()
        its = create(other.parameters())
        if gradients:
            backward(other, 7)
        load_sharded(other, f"{folder}/{key}", its)
        return other, its

    for begun in (False, True):
        model, steady = make(), make()
        optimizer, unsaved = create(model.parameters()), create(steady.parameters())
        if begun:
            backward(model, 0)
            backward(steady, 0)
        save_sharded(model, f"{folder}/{begun}", optimizer)
        pairs["save", begun] = content(model, optimizer), content(steady, unsaved)
        pairs["load", begun] = content(*load(begun, gradients=True)), content(steady, unsaved)
        for number in range(2):
            step(model, optimizer, number)
            step(steady, unsaved, number)
        pairs["steps", begun] = content(model, optimizer), content(steady, unsaved)
        save_sharded(model, f"{folder}/{begun} later", optimizer)
        for gradients in (False, True):
            other, its = load(f"{begun} later", gradients)
            pairs["later", begun, gradients] = content(other, its), content(steady, unsaved)
            step(other, its, 2)
            pairs["next", begun, gradients] = content(other, its), None
        step(steady, unsaved, 2)
        for gradients in (False, True):
            key = "next", begun, gradients
            pairs[key] = pairs[key][0], content(steady, unsaved)
    return pairs


def sharded():
    return fully_shard(network(), mesh=init_device_mesh("cpu", (2,)))


def work(rank, folder):
    return {
        name: round_trips(sharded, create, f"{folder}/{name}")
        for name, create in OPTIMIZERS.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def of_two(folder, tmp_path_factory):
    return in_two_processes(work, tmp_path_factory.mktemp("group"), str(folder))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_saving_changes_nothing_and_state_returns_exactly(tmp_path, name):
    for found, expected in round_trips(network, OPTIMIZERS[name], tmp_path).values():
        same(found, expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_saving_changes_nothing_and_state_returns_exactly_in_two_processes(of_two, folder, name):
    for pairs in of_two:
        for found, expected in pairs[name].values():
            same(found, expected)
    # One process reads what two wrote.
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    for begun in (False, True):
        load_sharded(model, folder / name / str(begun), optimizer)
        assert not optimizer.state_dict()["state"]
        load_sharded(model, folder / name / f"{begun} later", optimizer)
        same(content(model, optimizer), of_two[0][name]["later", begun, False][1])


def refused(load, model, optimizer, message):
    before = content(model, optimizer)
    with pytest.raises(ValueError, match=message):
        load()
    same(content(model, optimizer), before)


def test_refused_load_changes_no_optimizer(tmp_path):
    def attempt(path, create, message, model=None):
        model = model or network()
        optimizer = create(model.parameters())
        refused(lambda: load_sharded(model, tmp_path / path, optimizer), model, optimizer, message)

    adam, sgd = OPTIMIZERS["adam"], OPTIMIZERS["sgd"]
    model = network()
    save_sharded(model, tmp_path / "alone")
    save_sharded(model, tmp_path / "adam", adam(model.parameters()))
    save_sharded(model, tmp_path / "part", sgd(model.first.parameters()))
    groups = [{"params": model.first.parameters(), "lr": 0.5}]
    groups += [{"params": [*model.second.parameters(), *model.unused.parameters()]}]
    save_sharded(model, tmp_path / "groups", sgd(groups))
    for create in OPTIMIZERS.values():
        attempt("alone", create, "the folder holds no optimizer")
        attempt("adam", create, "the layer of 'first' is", network(16))
    attempt("adam", sgd, "the settings of the optimizer are .*betas.* those of the SGD are")
    attempt("adam", torch.optim.Adamax, "the settings of the optimizer are")
    attempt("part", sgd, "'.optimizer.param_groups.second.* is missing in the folder")
    attempt("groups", sgd, "differ in the folder; the optimizer has both in one group")
    of_first = adam(model.first.parameters())
    refused(
        lambda: load_sharded(model, tmp_path / "adam", of_first),
        model,
        of_first,
        "is of no parameter of the optimizer",
    )
    (data,) = (tmp_path / "adam").glob("*.distcp")
    os.truncate(data, data.stat().st_size // 2)
    attempt("adam", adam, "is incomplete or damaged")


def test_settings_of_schedulers_are_kept(tmp_path):
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    save_sharded(model, tmp_path / "saved", optimizer)
    other = OPTIMIZERS["sgd"](model.parameters())
    load_sharded(model, tmp_path / "saved", other)
    assert other.state_dict() == optimizer.state_dict()
    assert "initial_lr" in other.param_groups[0]


def test_optimizer_that_cannot_be_stored_is_refused_before_anything_is_written(tmp_path):
    def attempt(model, optimizer, message):
        refused(
            lambda: save_sharded(model, tmp_path / "saved", optimizer), model, optimizer, message
        )
        assert not (tmp_path / "saved").exists()

    model = network()
    attempt(model, OPTIMIZERS["adam"](network().parameters()), "that is not one of the model")
    adam = OPTIMIZERS["adam"](model.parameters())
    adam.state[model.unused.bias]["history"] = [torch.zeros(2)]
    with pytest.raises(ValueError, match="'history' is a list; expected tensors and numbers"):
        save_sharded(model, tmp_path / "saved", adam)
    assert not (tmp_path / "saved").exists()


def test_yellowfin_has_state_of_no_parameter(tmp_path):
    model = network()
    optimizer = YellowFin(model.parameters())
    save_sharded(model, tmp_path / "fresh", optimizer)
    assert not optimizer.state
    load_sharded(model, tmp_path / "fresh", optimizer)
    step(model, optimizer, 0)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="optimizer is a YellowFin, whose state 'tuner' is of no"):
        save_sharded(model, tmp_path / "later", optimizer)
    assert not (tmp_path / "later").exists()
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)
