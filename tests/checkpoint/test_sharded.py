"""Sharded checkpoints: written by two processes under FSDP2, read by two and by one."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from two_processes import in_two_processes

from maskedconv import convert_, load_sharded, methods, save_sharded
from maskedconv.conversion.convolutions import partly_learned_layers

METHODS = {
    "slice": methods.slice(0.25),
    "slice_at_random": methods.slice(0.25, which="random"),
    "norm_only": methods.norm_only(),
    "random_positions": methods.random_positions(40),
    "supermask": methods.supermask(k=0.3),
    "biprop": methods.biprop(k=0.3),
}


def network(method, seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 64, 3, bias=False), nn.Conv2d(64, 5, 1, bias=False),
        )  # fmt: skip
    return convert_(plain, method=method, seed=seed)


def trained(method):
    """A network with other learned values and statistics."""
    model = network(method)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.rand(parameter.shape, generator=generator)
    model[1].running_mean += 3
    return model


def sharded(model):
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(model[3], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def whole(model):
    return {
        key: value.full_tensor() if hasattr(value, "full_tensor") else value
        for key, value in model.state_dict().items()
    }


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
}


def step(model, optimizer, number):
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    model(images).square().mean().backward()
    optimizer.step()


def resumed(model, make, path):
    """The values after three steps, and after one that follows the load of the first two."""
    whole_run = model()
    optimizer = make(whole_run.parameters())
    for number in range(2):
        step(whole_run, optimizer, number)
    save_sharded(whole_run, path, optimizer)
    step(whole_run, optimizer, 2)
    other = model()
    its = make(other.parameters())
    load_sharded(other, path, its)
    step(other, its, 2)
    return whole(whole_run), whole(other)


def work(rank, folder):
    found = {}
    for name, make in OPTIMIZERS.items():
        path = f"{folder}/with {name}"
        found[f"with {name}"] = resumed(lambda: sharded(network(METHODS["slice"])), make, path)
    for name, method in METHODS.items():
        save_sharded(sharded(trained(method)), f"{folder}/{name}")
        found[name] = whole(load_sharded(sharded(network(method)), f"{folder}/{name}"))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def loaded(folder, tmp_path_factory):
    return in_two_processes(work, tmp_path_factory.mktemp("group"), str(folder))


def same(state, other):
    assert state.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in state.items())


def size(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_and_one_read_what_two_wrote(loaded, folder, name):
    expected = trained(METHODS[name]).state_dict()
    for found in loaded:
        same(found[name], expected)
    same(load_sharded(network(METHODS[name]), folder / name).state_dict(), expected)


def test_frozen_values_are_not_written(loaded, folder):
    model = network(METHODS["slice"])
    state = model.state_dict()
    frozen = sum(buffer.nbytes for layer in (model[0], model[3]) for buffer in layer.buffers())
    everything = sum(value.nbytes for value in state.values())
    # DCP writes an archive of its own for each tensor of each process.
    archives = 2 * 2048 * len(state)
    assert size(folder / "slice") < everything - frozen + archives < everything


def test_what_does_not_fit_is_refused_and_changes_nothing(loaded, folder, tmp_path):
    def refused(model, path, message):
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            load_sharded(model, path)
        same(before, model.state_dict())

    refused(network(METHODS["supermask"]), folder / "slice", "the layer of '0' is .* in the folder")
    other = methods.slice(0.25)
    changed = network(other)
    buffer = next(iter(changed[3].frozen_buffers()))
    getattr(changed[3], buffer).data += 1
    refused(changed, folder / "slice", f"the frozen values of '3.{buffer}'")
    wider = network(other)
    wider.append(nn.Linear(2, 2))
    refused(wider, folder / "slice", "the value of '5.bias' is missing in the folder")
    with pytest.raises(FileNotFoundError):
        load_sharded(network(other), tmp_path)
    with pytest.raises(ValueError, match="not empty; expected a new one"):
        save_sharded(network(other), folder / "slice")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_resumes_with_its_optimizer(loaded, folder, tmp_path, name):
    for found in loaded:
        same(*found[f"with {name}"])
    same(*resumed(lambda: network(METHODS["slice"]), OPTIMIZERS[name], tmp_path / "alone"))
    # One process reads what two wrote, with the optimizer's state or without.
    model = network(METHODS["slice"])
    optimizer = OPTIMIZERS[name](model.parameters())
    load_sharded(model, folder / f"with {name}", optimizer)
    (momentum, *_) = (state for state in optimizer.state.values())
    assert any(value.any() for value in momentum.values())
    same(
        load_sharded(network(METHODS["slice"]), folder / f"with {name}").state_dict(),
        model.state_dict(),
    )
    other = next(make for key, make in OPTIMIZERS.items() if key != name)(model.parameters())
    with pytest.raises(ValueError, match="the settings of the optimizer are"):
        load_sharded(model, folder / f"with {name}", other)


@pytest.mark.parametrize("lost", [".metadata", "__0_0.distcp", "maskedconv.json"])
def test_damaged_folder_is_refused(tmp_path, lost):
    saved = tmp_path / "saved"
    save_sharded(trained(METHODS["slice"]), saved)
    os.truncate(saved / lost, (saved / lost).stat().st_size // 2)
    model = network(METHODS["slice"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=str(saved)):
        load_sharded(model, saved)
    same(before, model.state_dict())


class Twice(nn.Module):
    """A layer under two names."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first = self.second = nn.Conv2d(3, 3, 3)


def first_names(model):
    return dict(partly_learned_layers(nn.ModuleDict({"first": model.first})))


@pytest.mark.parametrize("old", [False, True])
def test_a_layer_under_two_names(tmp_path, monkeypatch, old):
    """Old folders name it once, and hold its frozen values under the other name."""
    model = convert_(Twice(0), learned=1)
    other = convert_(Twice(0), learned=1)
    model.first.learned.data.normal_()
    with monkeypatch.context() as patch:
        if old:
            patch.setattr("maskedconv.checkpoint.sharded.partly_learned", first_names)
        save_sharded(model, tmp_path / "folder")
    assert (b"second.frozen" in (tmp_path / "folder" / ".metadata").read_bytes()) == old
    same(load_sharded(other, tmp_path / "folder").state_dict(), model.state_dict())
    with pytest.raises(ValueError, match=r"frozen values of 'first\.bias_frozen'"):
        load_sharded(convert_(Twice(1), learned=1), tmp_path / "folder")


def test_a_model_on_the_meta_device(tmp_path):
    save_sharded(network(METHODS["slice"]), tmp_path / "folder")
    with pytest.raises(ValueError, match=r"0\.learned of the model is on the meta device"):
        load_sharded(network(METHODS["slice"]).to("meta"), tmp_path / "folder")
