"""A global threshold in compiled networks."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from maskedconv.nn import SupermaskConv2d
from maskedconv.nn.global_threshold import share_threshold


class Block(nn.Module):
    """A layer of a size of its own; the graph breaks in front of it if ``breaks``."""

    def __init__(self, channels, breaks):
        super().__init__()
        self.conv = SupermaskConv2d(channels, channels + 1, 3, k=0.3, threshold="global", seed=0)
        self.breaks = breaks

    def forward(self, x):
        if self.breaks:
            torch._dynamo.graph_break()
        return self.conv(x).relu()


def network(breaks=False):
    torch._dynamo.reset()
    model = nn.Sequential(*(Block(channels, breaks) for channels in (3, 4, 5))).double()
    share_threshold(model)
    return model


def train(model, call):
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for step in range(3):
        torch.manual_seed(step)
        call(torch.randn(2, 3, 9, 9, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def assert_trains_as_eager(model, call):
    eager = copy.deepcopy(model)
    train(model, call)
    train(eager, eager)
    for ours, expected in zip(model.parameters(), eager.parameters(), strict=True):
        assert torch.equal(ours, expected)


def test_one_graph():
    model = network()
    assert_trains_as_eager(model, torch.compile(model, backend="aot_eager", fullgraph=True))


def test_some_layers_uncompiled():
    model = network(breaks=True)
    with torch._dynamo.config.patch(recompile_limit=2):
        assert_trains_as_eager(model, torch.compile(model, backend="aot_eager"))


def test_a_compiled_layer():
    model = network()
    model[1].compile(backend="aot_eager", fullgraph=True)
    assert_trains_as_eager(model, model)


def test_reading_a_mask():
    """A mask can be read until the scores change, as in a network that is not compiled."""
    model = network()
    eager = copy.deepcopy(model)
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    torch.compile(model, backend="aot_eager")(x)
    eager(x)
    for ours, expected in zip(model, eager, strict=True):
        assert torch.equal(ours.conv.mask, expected.conv.mask)
    with torch.no_grad():
        model[0].conv.scores.neg_()
    with pytest.raises(RuntimeError, match="the threshold of the network is not known"):
        _ = model[0].conv.mask
