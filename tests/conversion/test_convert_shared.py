"""Parameters that several layers share stay shared, and are counted once."""

from __future__ import annotations

import weakref

import pytest
from torch import nn
from two_convolutions import Net

from maskedconv import (
    MaskedConv2d,
    conversion_report,
    convert_,
    count_parameters,
    merge_,
    select_learned_,
)


class Tied(nn.Module):
    """Two layers with one Parameter for their weights, and a third convolution."""

    def __init__(self, other=None, part="weight"):
        super().__init__()
        self.a = nn.Conv2d(8, 8, 2, bias=True)
        self.b = nn.Conv2d(8, 8, 2, bias=True) if other is None else other
        setattr(self.b, part, getattr(self.a, part))
        self.c = nn.Conv2d(8, 4, 1, bias=False)


OTHERS = {
    "Conv2d": lambda: nn.Conv2d(8, 8, 2),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(8, 8, 2),
    "Linear": lambda: nn.Linear(2, 8),
    "Conv2d subclass": lambda: type("Own", (nn.Conv2d,), {})(8, 8, 2),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_shared_parameter_stays_shared(other, part):
    net = Tied(OTHERS[other](), part)
    total = count_parameters(net).total
    with pytest.warns(UserWarning, match=rf"a: its {part} is shared with b\.{part}"):
        convert_(net, learned=0.5)
    assert getattr(net.a, part) is getattr(net.b, part)
    assert type(net.c) is MaskedConv2d
    assert count_parameters(net).total == total
    assert count_parameters(net).learned == total - 16
    assert "a" in conversion_report(net).left_alone
    with pytest.raises(ValueError, match=rf"include has 'a', but .* shared with b\.{part}"):
        convert_(net, learned=0.5, include="a")


def test_two_tied_convolutions_alone():
    net = nn.Sequential(nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 2))
    net[1].weight = net[0].weight
    before = list(net)
    with pytest.raises(ValueError, match=r"no nn.Conv2d to convert: 0: .* shared with 1\.weight"):
        convert_(net, learned=0.5)
    assert list(net) == before
    assert count_parameters(net).total == 8 * 32 + 16


def test_shared_memory_counts_as_shared():
    net = nn.Sequential(nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 2))
    net[1].weight.data = net[0].weight.data
    with pytest.warns(UserWarning, match="left 2 of 3"):
        convert_(net, learned=0.5)
    assert type(net[2]) is MaskedConv2d


def test_a_buffer_counts_as_a_place():
    net = nn.Sequential(nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 2), nn.Module())
    net[2].register_buffer("target", net[0].weight.detach())
    with pytest.warns(UserWarning, match=r"0: its weight is shared with 2\.target"):
        convert_(net, learned=0.5)


def test_weak_proxies():
    """They act as the object that they stand for, and raise once it is gone."""

    class Trainer:
        def __init__(self, *layers):
            self.layers = layers

    net = nn.Sequential(nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 2))
    trainer = Trainer(net[0])
    net.trainer = weakref.proxy(trainer)
    with pytest.warns(UserWarning, match="0: it is also held in trainer"):
        convert_(net, learned=0.5)
    del trainer
    convert_(net, learned=0.5, include="0")
    assert all(type(layer) is MaskedConv2d for layer in net)


def test_merge_leaves_shared_parameters_alone():
    net = nn.Sequential(*(MaskedConv2d(8, 8, 2, learned=4) for _ in range(3)))
    net[1].learned = net[0].learned
    with pytest.warns(UserWarning, match=r"0: its learned is shared with 1\.learned; 1: its"):
        merge_(net)
    assert net[0].learned is net[1].learned
    assert type(net[2]) is nn.Conv2d


def test_counts_of_shared_parts():
    first, second = (MaskedConv2d(8, 8, 2, learned=4) for _ in range(2))
    net = nn.Sequential(first, second, first)
    assert count_parameters(net).total == 2 * 264
    second.learned = first.learned
    assert count_parameters(net).total == 2 * 264 - 128
    second.frozen = first.frozen
    second.bias_frozen, second.bias_learned = first.bias_frozen, first.bias_learned
    assert (count_parameters(net).learned, count_parameters(net).total) == (132, 264)


def test_selecting_a_part_with_shared_parameters():
    net = Net()
    net.block1 = nn.Sequential(net.conv2, nn.BatchNorm2d(8))
    net.fc2 = nn.Linear(8, 2)
    net.fc2.weight = net.fc.weight
    convert_(net, learned=0.5)
    assert count_parameters(select_learned_(net, "block1")).learned == 4 * 9 + 16
    assert count_parameters(select_learned_(net, "fc")).learned == 18 + 16
    net.conv1 = None
    with pytest.raises(ValueError, match="part is 'conv1'; expected one of all, bn, block1, fc"):
        select_learned_(net, "conv1")
