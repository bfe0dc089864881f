"""The values that networks start with: their distribution, and the seed that decides them."""

from __future__ import annotations

import math

import pytest
import torch
from small_networks import SMALL, parameters_by_name, small
from torch import nn

from maskedconv import MaskedConv2d, methods, models
from maskedconv.models.initialisation import he_normal_
from maskedconv.nn.scored import ScoredLayer
from maskedconv.nn.supermask import SupermaskLinear


@pytest.mark.parametrize(
    "name", ["wrn_28_4", "densenet_bc_40_12", "resnet_14", "vgg19_bn", "conv8"]
)
@pytest.mark.parametrize("frozen", ["random", "zero"])
def test_he_initialisation(name: str, frozen: str) -> None:
    model = models.create(name, learned=0.5, frozen=frozen, seed=0)
    checked = 0
    for conv in model.modules():
        if not isinstance(conv, MaskedConv2d):
            continue
        parts = [part for part in (conv.learned, conv.frozen) if part is not None]
        channels = conv.in_channels if name == "resnet_14" else conv.out_channels
        expected = math.sqrt(2 / (math.prod(conv.kernel_size) * channels))
        for part in parts:
            if part.numel() >= 1000:
                assert part.std().item() == pytest.approx(expected, rel=0.1)
                assert part.mean().item() == pytest.approx(0, abs=0.15 * expected)
                checked += 1
        if conv.bias is not None:
            assert not conv.bias.any()
    assert checked > 5


def test_batch_norm_starts_as_published() -> None:
    for name in ("wrn_28_4", "densenet_bc_40_12", "vgg19_bn"):
        norms = [m for m in models.create(name).modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(bool((m.weight == 1).all()) and not m.bias.any() for m in norms)
    norms = [m for m in models.create("resnet_56").modules() if isinstance(m, nn.BatchNorm2d)]
    gamma = torch.cat([m.weight for m in norms])
    assert 0 <= gamma.min() < 0.05
    assert 0.95 < gamma.max() <= 1
    assert gamma.mean().item() == pytest.approx(0.5, abs=0.03)
    assert not any(m.bias.any() for m in norms)


def test_fully_connected_layers_start_as_published() -> None:
    assert not models.create("wrn_10_1").fc.bias.any()
    fc = models.create("resnet_8", num_classes=100).fc
    assert fc.weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.05)
    assert fc.bias.any()
    fc = models.create("vgg19", num_classes=100).fc
    assert fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not fc.bias.any()
    fc = models.create("imagenet_resnet_18", method=methods.norm_only(), seed=0).fc
    assert fc.weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.05)


@pytest.mark.parametrize(
    "name", ["conv2", "fc_300_100", "imagenet_resnet_18", "resnet_14", "vgg19", "wrn_10_1"]
)
def test_frozen_weights_of_a_supermask_are_those_of_the_network(name: str) -> None:
    plain = dict(models.create(name, seed=0).named_modules())
    method = methods.supermask(weights="network", scale=False)
    masked = models.create(name, method=method, seed=0)
    layers = {key: m for key, m in masked.named_modules() if isinstance(m, ScoredLayer)}
    assert any(isinstance(layer, SupermaskLinear) for layer in layers.values())
    for key, layer in layers.items():
        expected = plain[key].weight.std().item()
        assert layer.frozen.std().item() == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("name", "learned", "init", "default"),
    [
        ("wrn_10_4", 0.5, "authors", True),
        ("vgg19_bn", 0.5, "authors", True),
        ("wrn_10_4", 1, "authors", True),
        ("wrn_10_4", 1.0, "authors", False),
        ("wrn_10_4", 0.5, "he", False),
        ("densenet_bc_16_12", 0.5, "authors", False),
        ("densenet_bc_16_12", 0.5, "default", True),
        ("densenet_bc_16_12", 1.0, "default", True),
        ("wrn_10_4", 1.0, "default", True),
        ("alexnet", 0.5, "he", True),
    ],
)
def test_initialisation_by_name(name: str, learned: float, init: str, default: bool) -> None:
    model = models.create(name, learned=learned, init=init, seed=0)
    for conv in (m for m in model.modules() if isinstance(m, MaskedConv2d)):
        if conv.weight.numel() < 2000:
            continue
        fan_in = math.prod(conv.weight_shape[1:])
        fan_out = math.prod(conv.kernel_size) * conv.out_channels
        expected = math.sqrt(1 / (3 * fan_in)) if default else math.sqrt(2 / fan_out)
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("name", SMALL)
def test_seed_decides_every_value_whatever_is_learned(name: str) -> None:
    whole = parameters_by_name(small(name, seed=3))
    for options in ({"learned": 0.3}, {"learned": 1}, {"learned": 0.5, "slice_dim": 1}):
        other = parameters_by_name(small(name, seed=3, **options))
        assert whole.keys() == other.keys()
        assert all(torch.equal(whole[key], other[key]) for key in whole)
    different = parameters_by_name(small(name, seed=4))
    drawn = [key for key, value in whole.items() if value.unique().numel() > 1]
    assert drawn
    assert not any(torch.equal(whole[key], different[key]) for key in drawn)


def test_zeroed_network_keeps_the_learned_values_of_the_seed() -> None:
    random = models.create("wrn_10_1", learned=0.5, seed=3)
    zero = models.create("wrn_10_1", learned=0.5, frozen="zero", seed=3)
    zero_values = dict(zero.named_parameters())
    for key, value in random.named_parameters():
        assert torch.equal(value, zero_values[key])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("learned", [0, 0.5])
@pytest.mark.parametrize("name", SMALL)
def test_zeroed_networks_do_not_warn(name: str, learned: float) -> None:
    small(name, learned=learned, frozen="zero", seed=3)


def test_seed_leaves_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    models.create("wrn_10_1", seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_seed_the_values_come_from_torchs_generator() -> None:
    torch.manual_seed(5)
    first = parameters_by_name(models.create("wrn_10_1"))
    torch.manual_seed(5)
    again = parameters_by_name(models.create("wrn_10_1"))
    third = parameters_by_name(models.create("wrn_10_1"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], third["conv1.weight"])


def test_plain_networks_can_be_initialised_too() -> None:
    conv = nn.Conv2d(16, 64, 3)
    he_normal_(conv)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.1)
