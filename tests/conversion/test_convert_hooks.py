"""Hooks and attributes of a layer stay with it through conversion and merging."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import nn
from two_convolutions import Net

from maskedconv import MaskedConv2d, convert_, merge_


def called(log):
    """One hook of each kind, which logs its kind and the module's type."""

    def note(kind, result=None):
        def hook(module, *args):
            log.append((kind, type(module)))

        return hook

    return {
        "register_forward_pre_hook": note("forward_pre"),
        "register_forward_hook": note("forward"),
        "register_full_backward_pre_hook": note("backward_pre"),
        "register_full_backward_hook": note("backward"),
    }


def test_hooks_move_and_their_handles_remove_them():
    net, log = Net(), []
    handles = [getattr(net.conv1, name)(hook) for name, hook in called(log).items()]
    kinds = ["forward_pre", "forward", "backward_pre", "backward"]
    for change, expected in (
        (lambda: convert_(net, learned=0.5), MaskedConv2d),
        (lambda: merge_(net), nn.Conv2d),
        (lambda: convert_(net, learned=0.5), MaskedConv2d),
    ):
        change()
        net(torch.randn(2, 3, 6, 6, requires_grad=True)).sum().backward()
        assert log == [(kind, expected) for kind in kinds]
        log.clear()
    for handle in handles:
        handle.remove()
    net(torch.randn(2, 3, 6, 6, requires_grad=True)).sum().backward()
    assert not log


def test_options_of_hooks_move():
    net = Net()
    net.conv1.register_forward_hook(
        lambda module, args, kwargs, output: output * 2, with_kwargs=True, always_call=True
    )
    x = torch.randn(2, 3, 6, 6)
    expected = net(x)
    assert torch.equal(convert_(net, learned=0.5)(x), expected)
    assert torch.equal(merge_(net)(x), expected)


def test_a_hook_that_changes_the_weight_changes_the_new_one():
    net, x = Net(), torch.randn(2, 3, 6, 6)
    net.conv1.register_forward_pre_hook(lambda module, args: module.weight.data.clamp_(-0.1, 0.1))
    expected = copy.deepcopy(net)(x)
    convert_(net, learned=0.5)
    assert torch.equal(net(x), expected)
    assert net.conv1.frozen.abs().max() <= 0.1


def test_attributes_move():
    net = Net()
    net.conv1.name, net.conv1.tags = "stem", ["first"]
    net.conv1.weight.no_weight_decay = True
    net.conv1.bias.lr_scale = 2.0
    tags = net.conv1.tags
    convert_(net, learned=0.5)
    assert (net.conv1.name, net.conv1.tags) == ("stem", ["first"])
    assert net.conv1.tags is tags
    assert net.conv1.learned.no_weight_decay
    assert net.conv1.bias_learned.lr_scale == 2.0
    merge_(net)
    assert net.conv1.tags is tags
    assert net.conv1.weight.no_weight_decay
    assert not hasattr(net.conv2.weight, "no_weight_decay")


def test_a_converted_model_with_attributes_is_copied_and_pickled():
    net = Net()
    net.conv1.tags = ["first"]
    convert_(net, learned=0.5)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert copied.conv1.tags == ["first"]
        assert torch.equal(copied.conv1.weight, net.conv1.weight)
