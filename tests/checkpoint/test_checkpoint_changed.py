"""Frozen values that have changed are named when a file leaves them out."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from maskedconv import convert_, load, methods, models, save

METHODS = {
    "kept": methods.slice(0.25),
    "drawn": methods.slice(0.25, frozen="random"),
    "channels": methods.slice(0.25, slice_dim=1),
    "positions": methods.random_positions(20),
    "supermask": methods.supermask(weights="kaiming"),
}
CHANGED = r"leaves out \d+ frozen values \(0\.frozen, \.\.\.\) that have changed"


def converted(name, seed=0):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False))
    return convert_(plain, method=METHODS[name], seed=seed)


def averaged(model):
    average = AveragedModel(model, avg_fn=get_ema_avg_fn(0.999), use_buffers=True)
    for _ in range(5):
        average.update_parameters(model)
    return average.module


@pytest.mark.parametrize("name", METHODS)
def test_an_average_that_moved_frozen_values(tmp_path, name):
    model = averaged(converted(name))
    assert not torch.equal(model[0].frozen, converted(name)[0].frozen)
    with pytest.warns(UserWarning, match=CHANGED) as record:
        save(model, tmp_path / "without")
    assert record[0].filename == __file__
    with pytest.raises(ValueError, match="is not what the file was saved with"):
        load(converted(name), tmp_path / "without")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", METHODS)
def test_values_that_are_known(tmp_path, name):
    model = averaged(converted(name))
    save(model, tmp_path / "base", base="hub/model")
    save(model, tmp_path / "frozen", frozen=True)
    loaded = load(converted(name), tmp_path / "frozen")
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    # They are now those of a file.
    save(loaded, tmp_path / "again")
    load(loaded, tmp_path / "again")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", METHODS)
def test_values_that_have_not_changed(tmp_path, name):
    model = converted(name)
    for parameter in model.parameters():
        parameter.data.normal_()
    for one in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.double()):
        save(one, tmp_path / "file")
    save(model.float().to(memory_format=torch.channels_last), tmp_path / "file")
    load(converted(name), tmp_path / "file")
    model.load_state_dict(copy.deepcopy(model).state_dict())
    save(model.bfloat16(), tmp_path / "file")


def test_a_network_with_a_seed(tmp_path):
    model = models.create("resnet_8", learned=0.25, seed=0)
    kept = model.conv1.frozen.clone()
    model.conv1.frozen.data.mul_(1 + 2e-7)
    with pytest.warns(UserWarning, match=r"1 frozen values \(conv1\.frozen, \.\.\.\)"):
        save(model, tmp_path / "file")
    model.conv1.frozen.copy_(kept)
    save(model, tmp_path / "file")
    load(models.create("resnet_8", learned=0.25, seed=1), tmp_path / "file")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["kept", "channels", "positions"])
def test_weights_of_a_plain_model(tmp_path, name):
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False))
    model = converted(name)
    model.load_state_dict(plain.state_dict())
    save(model, tmp_path / "file")


@pytest.mark.filterwarnings("error")
def test_values_that_a_seed_gives_again(tmp_path):
    torch.manual_seed(1)
    model = convert_(nn.Sequential(nn.Conv2d(3, 8, 3)), learned=0.25, seed=0)
    model[0].reset_parameters()
    save(model, tmp_path / "file")
    torch.manual_seed(2)
    load(convert_(nn.Sequential(nn.Conv2d(3, 8, 3)), learned=0.25), tmp_path / "file")
