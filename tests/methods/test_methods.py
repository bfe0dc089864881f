"""Methods: their settings, and a method of the test's own in every tool for whole models."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

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
from maskedconv.checkpoint import load_plain
from maskedconv.methods import METHODS, LayerFactory, Method
from maskedconv.nn.partly_learned import FrozenPart, PartlyLearned
from maskedconv.schema import count, list_of


class ScaledConv2d(PartlyLearned):
    """A frozen weight; one factor is learned for each filter."""

    method = "scale"
    num_learned = 1

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, **options):
        super().__init__()
        self.stride, self.padding, self.seed = stride, padding, options.get("seed")
        plain = nn.Conv2d(
            in_channels, out_channels, kernel_size, device=options.get("device"), bias=False
        )
        weight = plain.weight.detach()
        if self.seed is not None:
            weight.normal_(generator=torch.Generator().manual_seed(self.seed))
        self.weight_shape = tuple(weight.shape)
        self.register_buffer("directions", weight)
        self.scale = nn.Parameter(torch.ones_like(weight[:, :1, :1, :1]))

    @property
    def weight(self):
        return self.scale * self.directions

    def forward(self, x):
        return F.conv2d(x, self.weight, None, self.stride, self.padding)

    @classmethod
    def examples(cls):
        return (cls(2, 2, 1, device="meta"),)

    @property
    def dtype(self):
        return self.scale.dtype

    def frozen_parts(self):
        return (FrozenPart(self.directions, self.directions.numel() - self.scale.numel()),)

    def frozen_buffers(self):
        return ("directions",)

    def learned_parts(self):
        return ()

    def weight_values(self):
        return self.scale.detach().flatten(), self.directions.flatten()

    def learned_filters(self):
        return 0

    def configuration(self):
        return {"weight_shape": list(self.weight_shape)}

    def drawn_from(self, seed):
        out_channels, in_channels, *size = self.weight_shape
        return ScaledConv2d(in_channels, out_channels, size, seed=seed)

    def to_frozen(self):
        frozen = copy.deepcopy(self)
        frozen.requires_grad_(False)
        return frozen

    def to_plain(self):
        out_channels, in_channels, *size = self.weight_shape
        plain = nn.Conv2d(in_channels, out_channels, size, self.stride, self.padding, bias=False)
        plain.weight.data.copy_(self.weight.detach())
        return plain


class Scale(Method):
    name = "scale"
    layer = ScaledConv2d
    schema: ClassVar[dict[str, Any]] = {"weight_shape": list_of(count, 4)}

    def factory(self):
        return LayerFactory(conv=ScaledConv2d)

    def settings(self):
        return {"method": self}

    def convert(self, conv, seed):
        layer = ScaledConv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
        )
        layer.directions.copy_(conv.weight.detach())
        return layer

    @staticmethod
    def mistake(configuration):
        return ""

    @staticmethod
    def stored_shapes(configuration):
        shape = configuration["weight_shape"]
        return {"directions": shape, "scale": [shape[0], 1, 1, 1]}

    @staticmethod
    def plain_values(configuration, stored):
        return {"weight": stored["scale"] * stored["directions"]}


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
    with pytest.raises(ValueError, match=r"0.method is scale; expected slice"):
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
