"""A seed draws what is learned, and nothing else."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from maskedconv import Ensemble, Tasks, convert_, methods
from maskedconv.nn.drawing import draw_learned_


class Block(nn.Module):
    """Has no values of its own, and sets those of layers within it."""

    def __init__(self, bias):
        super().__init__()
        self.conv, self.bn, self.scale = nn.Conv2d(3, 8, 3, bias=bias), nn.BatchNorm2d(8), Scale()
        self.reset_parameters()

    def reset_parameters(self):
        self.conv.reset_parameters()
        self.scale.scale.data.normal_()
        nn.init.normal_(self.bn.weight)

    def forward(self, x):
        return self.scale(self.bn(self.conv(x)))


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x):
        return x * self.scale


class Network(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.block, self.fc = Block(bias), nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.block(x).mean((2, 3)))


def network(method=methods.slice(0.25), **options):
    torch.manual_seed(0)
    return convert_(Network(method.name == "slice"), method=method, head="fc", **options)


def values(model):
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def moved(model, before):
    after = model.state_dict()
    return {key for key in before if not torch.equal(before[key], after[key])}


@pytest.mark.parametrize("method", [methods.slice(0.25), methods.supermask()])
def test_frozen_values_do_not_move(method):
    model = network(method, rest="freeze", norm="frozen")
    before = values(model)
    members = Ensemble(model, 2, seed=0).members
    assert moved(model, before) == set()
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    for member in members:
        assert moved(member, before) == learned
    tasks, x = Tasks(model), torch.randn(2, 3, 8, 8)
    tasks.add("a")
    out = tasks(x)
    tasks.add("b", seed=1)
    tasks.set("a")
    assert torch.equal(tasks(x), out)


def test_what_a_container_sets_is_drawn():
    model = network(rest="learn")
    model.block.bn.weight.requires_grad_(False)
    before = values(model)
    draw_learned_(model, 0)
    assert moved(model, before) == {
        *("block.conv.learned", "block.conv.bias_learned", "block.scale.scale"),
        *("fc.weight", "fc.bias"),
    }


@pytest.mark.parametrize("name", ["block.conv.learned", "fc.bias"])
def test_a_layer_of_which_a_part_is_frozen(name):
    model = network(rest="freeze", norm="frozen")
    model.get_parameter(name).requires_grad_(False)
    before = values(model)
    draw_learned_(model, 0)
    assert moved(model, before) == {k for k, p in model.named_parameters() if p.requires_grad}


def test_a_layer_that_learns_nothing_needs_no_seed():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Linear(2, 2))
    convert_(model[0], method=methods.random_positions(2)).requires_grad_(False)
    before = values(model)
    draw_learned_(model, 0)
    assert moved(model, before) == {"1.weight", "1.bias"}


def test_values_that_nothing_draws_are_named():
    model = nn.Sequential(Scale(), nn.Linear(8, 2))
    before = values(model)
    with pytest.warns(UserWarning, match=r"nothing for 1 learned parameters \(0\.scale\)"):
        Ensemble(model, 2, seed=0)
    with pytest.warns(UserWarning, match="they keep the values of the model") as record:
        Tasks(copy.deepcopy(model)).add("a", seed=0)
    assert record[0].filename == __file__
    assert moved(model, before) == set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Ensemble(nn.Linear(8, 2), 2, seed=0)


def test_a_module_without_values_yet():
    model = nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 2, device="meta"))
    with pytest.warns(UserWarning, match="for 4 learned parameters"):
        draw_learned_(model, 0)
    assert model[1].weight.is_meta
