"""Positions that something else than their layer has changed."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_avg_fn

from maskedconv import Tasks, convert_, load, methods, models, save
from maskedconv.nn import remembered
from maskedconv.nn.positions import PositionsLinear


def converted(seed=0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(32, 2))
    return convert_(model, method=methods.random_positions(40), rest="freeze", seed=seed)


def created():
    method = methods.random_positions(40)
    return models.create("conv2", width=0.05, image_size=4, method=method, seed=0)


NETWORKS = {"converted": converted, "created": created}


def images():
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def averaged(model, **options):
    average = AveragedModel(model, **options)
    for _ in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
        average.update_parameters(model)
    return average


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_an_average_that_moves_positions_is_refused(name, tmp_path):
    model = NETWORKS[name]()
    average = averaged(model, multi_avg_fn=get_ema_multi_avg_fn(0.9999), use_buffers=True)
    with pytest.raises(RuntimeError, match="have changed, as by an average"):
        average(images())
    with pytest.raises(RuntimeError, match=r"use_buffers=False"):
        save(average, tmp_path / "file")
    model(images())
    average.load_state_dict({**average.state_dict(), **AveragedModel(model).state_dict()})
    assert torch.equal(average(images()), model(images()))


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("use_buffers", [False, True])
def test_an_average_that_leaves_them(name, use_buffers):
    model = NETWORKS[name]()
    average = averaged(model, avg_fn=get_swa_avg_fn(), use_buffers=use_buffers)
    ours = {key: value for key, value in average.module.state_dict().items()}
    for key, value in model.state_dict().items():
        if key.endswith("positions"):
            assert torch.equal(ours[key], value)
    assert average(images()).isfinite().all()


def test_an_average_of_a_model_that_was_loaded(tmp_path):
    """No pass has read the positions between."""
    save(converted(seed=1), tmp_path / "file", frozen=True)
    model = load(converted(), tmp_path / "file")
    average = averaged(model, multi_avg_fn=get_ema_multi_avg_fn(0.9999), use_buffers=True)
    for moved in (average, copy.deepcopy(average), average.double()):
        with pytest.raises(RuntimeError, match="have changed, as by an average"):
            moved(images().to(moved.module[0].dtype))


def test_positions_are_kept_once():
    layer = PositionsLinear(200, 200)
    layer.learn_(torch.arange(20000))
    layer(torch.randn(1, 200))
    values = sum(one.nbytes for one in (*layer.parameters(), *layer.buffers()))
    assert values <= len(pickle.dumps(layer)) < 1.1 * values


def test_positions_of_a_file_or_a_task(tmp_path):
    """These replace them, and so do copies of the model."""
    other = converted(seed=1)
    save(other, tmp_path / "file", frozen=True)
    expected = other(images())
    model = converted()
    assert not torch.equal(model[0].positions, other[0].positions)
    start = model(images())
    for made in (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        again = made(model)
        assert torch.equal(again(images()), start)
        assert torch.equal(load(again, tmp_path / "file")(images()), expected)
    tasks = Tasks(model)
    tasks.add("a")
    tasks.load("b", tmp_path / "file")
    assert torch.equal(tasks(images()), expected)
    tasks.set("a")
    assert torch.equal(tasks(images()), start)


MADE = {
    "copied": copy.deepcopy,
    "itself": lambda tasks: tasks,
    "moved": lambda tasks: tasks._apply(torch.clone),  # as .to() another device
    "pickled": lambda tasks: pickle.loads(pickle.dumps(tasks)),
}


@pytest.mark.parametrize("made", sorted(MADE))
def test_an_average_of_tasks(made, tmp_path):
    save(converted(seed=1), tmp_path / "file", frozen=True)
    tasks = Tasks(converted())
    tasks.add("a")
    tasks.load("b", tmp_path / "file")
    average = averaged(tasks, multi_avg_fn=get_ema_multi_avg_fn(0.9999), use_buffers=True)
    average.module = MADE[made](average.module)
    for name in "aba":
        average.module.set(name)
        with pytest.raises(RuntimeError, match="have changed, as by an average"):
            average(images())
    average.load_state_dict({**average.state_dict(), **AveragedModel(tasks).state_dict()})
    for name in "ab":
        average.module.set(name)
        tasks.set(name)
        assert torch.equal(average(images()), tasks(images()))


def test_a_copy_at_the_address_of_a_tensor_that_is_gone(monkeypatch):
    monkeypatch.setattr(remembered, "version_and_address", lambda tensor: (0, 0))
    layer = PositionsLinear(3, 3)
    layer.learn_(torch.arange(4))
    layer.positions[3] = 5
    for made in (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        with pytest.raises(RuntimeError, match="have changed"):
            made(layer)(torch.randn(1, 3))


def test_a_state_dict_of_the_tensors_themselves():
    model, file = converted(), io.BytesIO()
    torch.save(model.state_dict(keep_vars=True), file)
    file.seek(0)
    other = converted(seed=1)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(images()), model(images()))
