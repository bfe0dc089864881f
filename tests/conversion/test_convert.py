"""Whole models: conversion, merging, counting, and learning only part."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from maskedconv import (
    MaskedConv2d,
    convert_,
    count_parameters,
    merge_,
    models,
    select_learned_,
)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 10, 3, bias=False),
        nn.BatchNorm2d(10),
        nn.Sequential(nn.Conv2d(10, 20, 3), nn.ReLU(), nn.Conv2d(20, 6, 1)),
        nn.Flatten(),
        nn.Linear(6, 2),
    ).eval()


def test_keeps_values_and_counts_what_is_learned():
    model, x = network(), torch.randn(2, 3, 5, 5)
    expected = model(x)
    total = sum(p.numel() for p in model.parameters())
    assert convert_(model, learned=0.5) is model
    torch.testing.assert_close(model(x), expected)
    learned = 5 * 27 + 20 + (10 * 90 + 10) + (3 * 20 + 3) + 14
    count = count_parameters(model)
    assert (count.learned, count.total) == (learned, total)
    assert count.fraction == learned / total


@pytest.mark.parametrize("frozen", ["random", "zero"])
def test_other_starts(frozen):
    plain = network()
    first, again = (
        convert_(copy.deepcopy(plain), learned=0.3, frozen=frozen, seed=1) for _ in range(2)
    )
    assert torch.equal(first[0].learned, plain[0].weight[:3])
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, plain[0].weight)
    assert count_parameters(first).total == count_parameters(plain).total


def test_merge_gives_plain_convolutions_back():
    model, x = convert_(network(), learned=0.5, slice_dim=1, frozen="random", seed=0), None
    x = torch.randn(2, 3, 5, 5)
    expected = model(x)
    merge_(model)
    assert not any(isinstance(m, MaskedConv2d) for m in model.modules())
    torch.testing.assert_close(model(x), expected)


def test_patterns_choose_layers():
    model = convert_(network(), learned=1, include=["2.*"], exclude="*.2")
    kinds = [type(model[0]), type(model[2][0]), type(model[2][2])]
    assert kinds == [nn.Conv2d, MaskedConv2d, nn.Conv2d]


def test_a_shared_layer_stays_shared():
    conv = nn.Conv2d(4, 4, 1)
    model = convert_(nn.Sequential(conv, nn.ReLU(), conv), learned=1)
    assert model[0] is model[2]
    assert merge_(model)[0] is model[2]


def test_nothing_is_replaced_on_error():
    model = network()
    with pytest.raises(ValueError, match=r"2\.2: learned is 8 filters, .* only 6"):
        convert_(model, learned=8)
    assert not any(isinstance(m, MaskedConv2d) for m in model.modules())
    with pytest.raises(ValueError, match="include has 'layer1', which matches no"):
        convert_(model, learned=1, include="layer1")
    with pytest.raises(ValueError, match="frozen is 'kept'"):
        convert_(model, learned=1, frozen="kept")
    with pytest.raises(ValueError, match=r"no nn.Conv2d to convert"):
        convert_(nn.Linear(2, 2), learned=1)
    with pytest.raises(ValueError, match="from_conv2d"):
        convert_(nn.Conv2d(2, 2, 1), learned=1)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = MaskedConv2d(3, 4, 3, learned=1.0)
        self.block1 = nn.Sequential(nn.BatchNorm2d(4), MaskedConv2d(4, 4, 3, learned=0.5))
        self.fc = nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("part", "learned"),
    [
        ("bn", 8),
        ("conv1", 8 + 112),
        ("block1", 8 + 74),
        ("fc", 8 + 10),
        ("all", 8 + 112 + 74 + 10),
        (("bn", "fc"), 8 + 10),
        (("fc", "conv1"), 8 + 112 + 10),
        (["bn"], 8),
    ],
)
def test_only_a_part_is_learned(part, learned):
    count = count_parameters(select_learned_(Parts(), part))
    assert (count.learned, count.total) == (learned, 8 + 112 + 148 + 10)


def test_unknown_part_names_those_that_exist():
    message = "part is 'block2'; expected one of all, bn, conv1, block1, fc"
    with pytest.raises(ValueError, match=message):
        select_learned_(Parts(), "block2")
    with pytest.raises(ValueError, match=message):
        select_learned_(Parts(), ["fc", "block2"])
    with pytest.raises(ValueError, match=r"part is \(\); expected at least one of all, bn"):
        select_learned_(Parts(), ())


def test_shortcuts_are_a_part():
    for name, convolutions in (("resnet_14", 2560), ("wrn_10_1", 16 * 32 + 32 * 64)):
        model = models.create(name)
        norms = count_parameters(select_learned_(model, "bn")).learned
        model = select_learned_(model, ("bn", "shortcuts", "fc"))
        assert count_parameters(model).learned == norms + convolutions + 650
        select_learned_(model, "fc", bn_learned=False)
        assert count_parameters(model).learned == 650
        select_learned_(model, "shortcuts", bn_learned=False)
        assert count_parameters(model).learned == convolutions
