"""Conversion warns once of what is easily missed: optimizers of old parameters, nothing learned."""

from __future__ import annotations

import pytest
import torch
from two_convolutions import Net

from maskedconv import convert_, count_parameters, merge_, models


@pytest.mark.parametrize("call", [lambda net: convert_(net, learned=0.5), merge_])
def test_an_optimizer_of_the_old_parameters_is_named(call):
    net = Net()
    if call is merge_:
        convert_(net, learned=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match=r"parameters that an optimizer holds \(SGD\)"):
        call(net)
    del optimizer


def test_an_optimizer_of_other_parameters_is_not(recwarn):
    net = Net()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (net.fc, Net())]
    convert_(net, learned=0.5)
    assert not recwarn.list
    del optimizers


def test_a_fraction_that_learns_nothing_is_said_once():
    with pytest.warns(UserWarning, match="learns no filter") as caught:
        convert_(Net(), learned=0.1)
    (warning,) = caught
    assert str(warning.message) == (
        "learned=0.1 learns no filter of these convolutions, which have too few "
        "(the number of filters in parentheses): conv1 (8), conv2 (8)"
    )
    assert warning.filename == __file__


def test_layers_that_were_all_frozen_are_said_once():
    net = Net().requires_grad_(False)
    with pytest.warns(UserWarning, match="no converted layer learns anything") as caught:
        convert_(net, learned=0.5)
    assert len(caught) == 1
    assert count_parameters(net).learned == 0


def test_a_network_that_learns_nothing_somewhere_says_so_once():
    with pytest.warns(UserWarning, match="learns no filter") as caught:
        model = models.create("wrn_10_1", learned=0.05)
    (warning,) = caught
    none = [n for n, layer in model.named_modules() if getattr(layer, "num_learned", 1) == 0]
    assert len(none) == 3
    assert str(warning.message).endswith(": " + ", ".join(f"{name} (16)" for name in none))
    assert warning.filename == __file__


def test_nothing_is_said_of_what_was_asked_for(recwarn):
    models.create("wrn_10_1", learned=0)
    models.create("wrn_10_1", learned=1)
    for learned, slice_dim in ((0, 0), (0.0, 0), (0.125, 0), (0.1, 1), (0.1, 3)):
        convert_(Net(), learned=learned, slice_dim=slice_dim)
    assert not recwarn.list
