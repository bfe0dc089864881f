"""Frozen values that have changed are named when a file leaves them out."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from maskedconv import MaskedConv2d, Tasks, convert_, load, merge_, methods, models, save
from maskedconv.nn.supermask import SupermaskConv2d

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


def plain_layers():
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False))


WITHOUT_A_SEED = {
    "convert_ random": lambda: convert_(plain_layers(), learned=0.25, frozen="random"),
    "convert_ supermask": lambda: convert_(plain_layers(), method=methods.supermask()),
    "create biprop": lambda: models.create("conv2", method=methods.biprop(), width=0.1),
    "create norm_only": lambda: models.create("resnet_8", method=methods.norm_only()),
    "create slice": lambda: models.create("resnet_8", learned=0.25),
    "layer": lambda: nn.Sequential(MaskedConv2d(3, 8, 3, learned=2, slice_dim=1)),
}


@pytest.mark.parametrize("name", sorted(WITHOUT_A_SEED))
def test_values_that_were_drawn_without_a_seed(tmp_path, name):
    make = WITHOUT_A_SEED[name]
    model = make()
    for one in (model, copy.deepcopy(model).half(), pickle.loads(pickle.dumps(model))):
        with pytest.warns(UserWarning, match=r"frozen, \.\.\.\) that were drawn at ran") as record:
            save(one, tmp_path / "file")
        assert record[0].filename == __file__
    load(model, tmp_path / "file")
    with pytest.warns(UserWarning, match="drawn at random"):
        save(model, tmp_path / "file")
    with pytest.raises(ValueError, match="is not what the file was saved with"):
        load(make(), tmp_path / "file")


@pytest.mark.parametrize("name", sorted(WITHOUT_A_SEED))
def test_values_that_are_elsewhere_too(tmp_path, name, recwarn):
    """The values were drawn, but are now those of a file, or of a base that the user names."""
    make = WITHOUT_A_SEED[name]
    model = make()
    save(model, tmp_path / "frozen", frozen=True)
    save(model, tmp_path / "base", base="hub/model")
    loaded = load(make(), tmp_path / "frozen")
    save(loaded, tmp_path / "task")
    save(load(model, tmp_path / "frozen"), tmp_path / "task")
    assert not [one for one in recwarn if "drawn at random" in str(one.message)]


LAYERS = {
    "layer": lambda seed: MaskedConv2d(3, 8, 3, learned=2, seed=seed),
    "layer of channels": lambda seed: MaskedConv2d(3, 8, 3, learned=2, slice_dim=1, seed=seed),
    "supermask layer": lambda seed: SupermaskConv2d(3, 8, 3, k=0.5, seed=seed),
}


def drawn_without_a_seed(name):
    return WITHOUT_A_SEED[name]() if name in WITHOUT_A_SEED else nn.Sequential(LAYERS[name](None))


@pytest.mark.parametrize("name", sorted(WITHOUT_A_SEED | LAYERS))
def test_values_of_another_model_that_was_drawn_without_a_seed(tmp_path, name):
    model = drawn_without_a_seed(name)
    model.load_state_dict(drawn_without_a_seed(name).state_dict())
    with pytest.warns(UserWarning, match=r"frozen, \.\.\.\) that have changed") as record:
        save(model, tmp_path / "file")
    assert len(record) == 1
    assert "bias" not in str(record[0].message)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_values_that_are_not_those_of_the_layers_seed(tmp_path, name):
    model = nn.Sequential(LAYERS[name](1))
    save(model, tmp_path / "file")
    model.load_state_dict(nn.Sequential(LAYERS[name](2)).state_dict())
    with pytest.warns(UserWarning, match=CHANGED):
        save(model, tmp_path / "file")


@pytest.mark.parametrize("seed", [None, 1])
def test_an_initialiser_after_the_draw(tmp_path, seed):
    model = nn.Sequential(MaskedConv2d(3, 8, 3, bias=False, learned=2, seed=seed))
    nn.init.kaiming_normal_(model[0].weight)
    with pytest.warns(UserWarning, match=CHANGED):
        save(model, tmp_path / "file")
    model[0].reset_parameters()
    assert not [one for one in warnings_of(save, model, tmp_path / "file") if "changed" in one]


def warnings_of(function, *arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        function(*arguments)
    return [str(one.message) for one in caught]


def test_a_layer_of_a_pretrained_convolution(tmp_path):
    layer = MaskedConv2d.from_conv2d(nn.Conv2d(3, 8, 3), learned=2)
    model = nn.Sequential(layer, nn.BatchNorm2d(8))
    assert not warnings_of(save, model, tmp_path / "file")
    with pytest.warns(UserWarning, match=CHANGED):
        save(averaged(model), tmp_path / "file")


def test_zeros_are_not_drawn(tmp_path):
    model = models.create("vgg19", learned=0.5, width=0.125)
    layers = [one for one in model.modules() if isinstance(one, MaskedConv2d)]
    assert not any(one.bias_frozen.any() for one in layers)
    with pytest.warns(UserWarning, match=f"leaves out {len(layers)} frozen values"):
        save(model, tmp_path / "file")


def test_values_that_torchs_generator_gives_again(tmp_path):
    """The file has no seed for them, but a model to load into may have the same values."""

    def made():
        torch.manual_seed(0)
        return nn.Sequential(MaskedConv2d(3, 8, 3, learned=2), nn.BatchNorm2d(8))

    model = made()
    nn.init.ones_(model[0].learned)
    with pytest.warns(UserWarning, match="A model to load it into needs the same values"):
        save(model, tmp_path / "file")
    assert torch.equal(load(made(), tmp_path / "file")[0].weight, model[0].weight)


def test_files_of_several_tasks_warn_once(tmp_path):
    tasks = Tasks(models.create("resnet_8", learned=0.25))
    for name in ("birds", "cars"):
        tasks.add(name)

    def save_all():
        for name in tasks.names:
            tasks.save(name, tmp_path / name)

    assert len(warnings_of(save_all)) == 1


@pytest.mark.filterwarnings("error")
def test_values_of_a_pretrained_model_and_of_seeds(tmp_path):
    for method in (methods.slice(0.25), methods.supermask(weights="keep"), METHODS["positions"]):
        save(convert_(plain_layers(), method=method), tmp_path / "file")
    for seeded in (
        convert_(plain_layers(), learned=0.25, frozen="random", seed=0),
        convert_(plain_layers(), learned=0.25, frozen="zero"),
        models.create("resnet_8", learned=0.25, seed=0),
        nn.Sequential(MaskedConv2d(3, 8, 3, learned=2, seed=0)),
    ):
        save(seeded, tmp_path / "file")
    model = convert_(plain_layers(), learned=0.25, frozen="random")
    model.load_state_dict(plain_layers().state_dict())
    save(model, tmp_path / "file")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["drawn", "supermask"])
def test_a_seed_of_layers_that_were_cast(tmp_path, name, dtype):
    """Their values are those of the seed in float32, cast."""
    model = converted(name).to(dtype)
    save(model, tmp_path / "cast")
    loaded = load(converted(name, seed=5).to(dtype), tmp_path / "cast")
    assert torch.equal(loaded[1].weight, model[1].weight)
    made = convert_(plain_layers().to(dtype), method=METHODS[name], seed=0)
    save(made, tmp_path / "made")
    loaded = load(converted(name, seed=5).to(dtype), tmp_path / "made")
    assert torch.equal(loaded[1].weight, made[1].weight)


@pytest.mark.filterwarnings("error")
def test_a_seed_does_not_stay_with_the_values_of_another_one(tmp_path):
    """The values come from a state dict, and the file names their seed."""
    first, second = (models.create("resnet_8", learned=0.25, seed=seed) for seed in (1, 2))
    save(first, tmp_path / "file")
    second.load_state_dict(first.state_dict())
    save(load(second, tmp_path / "file"), tmp_path / "again")
    third = load(models.create("resnet_8", learned=0.25, seed=3), tmp_path / "again")
    assert torch.equal(third.conv1.frozen, first.conv1.frozen)


def test_merged_layers_forget_the_network_that_drew_them(tmp_path):
    """It would give other positions than those that are drawn for the merged layers."""
    method = methods.random_positions(30)

    def made(seed):
        network = merge_(models.create("resnet_8", method=method, seed=1))
        return convert_(network, method=method, include="conv1", rest="freeze", seed=seed)

    model = made(0)
    save(model, tmp_path / "file", base="create(seed=1)")
    loaded = load(made(2), tmp_path / "file")
    assert torch.equal(loaded.conv1.positions, model.conv1.positions)
