"""Methods: their settings, and a method of the test's own in every tool for whole models."""

from __future__ import annotations

import copy

import pytest
import torch
from scale_method import Scale, ScaledConv2d
from torch import nn

from maskedconv import (
    MaskedConv2d,
    conversion_report,
    convert_,
    count_parameters,
    load,
    merge_,
    methods,
    models,
    save,
)
from maskedconv.checkpoint import file, load_plain
from maskedconv.methods import METHODS


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(METHODS, "scale", Scale)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 2, 3, bias=False))


def test_conversion_counts_and_merging():
    model, x = network(), torch.randn(2, 3, 8, 8)
    expected, total = model(x), sum(p.numel() for p in model.parameters())
    convert_(model, method=Scale())
    assert conversion_report(model).converted == ("0", "1")
    counted = count_parameters(model)
    assert (counted.learned, counted.total) == (4 + 2, total)
    torch.testing.assert_close(model(x), expected)
    merge_(model)
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.Conv2d]
    torch.testing.assert_close(model(x), expected)


def test_checkpoints(tmp_path):
    convert_(model := network(), method=Scale())
    for layer in model:
        layer.scale.data.normal_()
    save(model, tmp_path / "learned")
    save(model, tmp_path / "all", frozen=True)
    again = copy.deepcopy(model)
    again[0].scale.data.zero_()
    load(again, tmp_path / "learned")
    assert torch.equal(again[0].weight, model[0].weight)
    plain = network()
    plain.load_state_dict(load_plain(tmp_path / "all"))
    assert torch.equal(plain[1].weight, model[1].weight)
    other = convert_(network(), learned=0.5)
    with pytest.raises(ValueError, match=r"0.method is scale in the file; the model has slice"):
        load(other, tmp_path / "all")


def test_frozen_values_are_drawn_again_from_the_seed(tmp_path):
    model = nn.Sequential(ScaledConv2d(3, 4, 3, seed=5))
    save(model, tmp_path / "file")
    other = nn.Sequential(ScaledConv2d(3, 4, 3, seed=6))
    load(other, tmp_path / "file")
    assert torch.equal(other[0].directions, model[0].directions)
    assert other[0].seed == 5


def test_networks():
    model = models.create("wrn_10_1", method=Scale(), seed=0)
    layers = [m for m in model.modules() if isinstance(m, ScaledConv2d)]
    assert len(layers) == 9
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(layer.scale.grad is not None for layer in layers)


def test_a_network_draws_its_frozen_values_again(tmp_path):
    """The checkpoint holds the method's name and settings."""
    arguments = {"num_classes": 4, "method": Scale(0.5)}
    model = models.create("wrn_10_1", seed=3, **arguments)
    assert model.conv1.scale.detach().unique().tolist() == [0.5]
    save(model, tmp_path / "file")
    other = models.create("wrn_10_1", seed=4, **arguments)
    load(other, tmp_path / "file")
    state = other.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    save(other, tmp_path / "again")
    assert file.read(tmp_path / "again").digest == file.read(tmp_path / "file").digest


def test_methods_by_their_names():
    assert methods.make("scale", start=0.5) == Scale(0.5)
    assert methods.make("slice", learned=0.5) == methods.slice(0.5)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("scales", {}, ValueError, "method is 'scales'; expected one of slice, "),
        ("scale", {"end": 1}, ValueError, "method scale has no option 'end'; .* some of: start"),
        ("slice", {"slice_dim": 1}, TypeError, "method slice lacks the option 'learned'"),
    ],
)
def test_unknown_methods_and_settings_are_named(name, options, error, message):
    with pytest.raises(error, match=message):
        methods.make(name, **options)


def test_a_subclass_of_a_layer_is_left_alone():
    class Own(ScaledConv2d):
        pass

    model = nn.Sequential(Own(3, 4, 1), ScaledConv2d(4, 4, 1))
    with pytest.warns(UserWarning, match="a subclass of ScaledConv2d: Own"):
        merge_(model)
    assert type(model[0]) is Own


def test_slices_are_the_default_method():
    given = convert_(network(), method=methods.slice(2, slice_dim=1))
    plain = convert_(network(), learned=2, slice_dim=1)
    for one, other in zip(given, plain, strict=True):
        assert type(one) is type(other) is MaskedConv2d
        assert one.configuration() == other.configuration()
    by_method = models.create("wrn_10_1", method=methods.slice(0.5, frozen="zero"), seed=3)
    by_arguments = models.create("wrn_10_1", learned=0.5, frozen="zero", seed=3)
    states = by_method.state_dict(), by_arguments.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_new_network_keeps_its_random_start():
    model = models.create("wrn_10_1", method=methods.slice(0.5), seed=0)
    assert model.conv1.frozen_mode == "random"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "learned is missing"),
        ({"learned": 0.5, "method": methods.slice(0.5)}, ValueError, "expected one of the two"),
        ({"slice_dim": 1, "method": methods.norm_only()}, ValueError, "without slice_dim"),
        ({"frozen": "zero", "method": methods.supermask()}, ValueError, "without slice_dim"),
    ],
)
def test_conversion_takes_one_method(arguments, error, message):
    model = network()
    with pytest.raises(error, match=message):
        convert_(model, **arguments)
    assert type(model[0]) is nn.Conv2d


def test_a_network_takes_one_method():
    with pytest.raises(ValueError, match="without learned, slice_dim and frozen"):
        models.create("wrn_10_1", learned=0.5, method=methods.slice(0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learned": 1.5}, "learned is 1.5"),
        ({"learned": 0.5, "slice_dim": 4}, "slice_dim is 4"),
        ({"learned": 0.5, "frozen": "some"}, "frozen is 'some'"),
    ],
)
def test_settings_of_slices_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        methods.slice(**arguments)
