"""State dicts of plain convolutions, and layers made of layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskedconv.nn import MaskedConv2d
from maskedconv.nn.positions import PositionsConv2d


def layer_of(**options):
    return MaskedConv2d(4, 6, 3, **{"learned": 2, **options})


def layer_at_positions():
    layer = PositionsConv2d(4, 6, 3)
    layer.learn_(torch.arange(5, 60, 7))
    return layer


LAYERS = {"positions": layer_at_positions, "slice": layer_of}


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_hooks_before_loading_may_rename_the_weight(kind):
    plain, layer = nn.Conv2d(4, 6, 3), LAYERS[kind]()
    calls = []

    def rename(module, state_dict, prefix, *_):
        calls.append(module)
        state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}kernel")

    layer.register_load_state_dict_pre_hook(rename)
    model = nn.Sequential(layer)
    for _ in range(2):
        model.load_state_dict({"0.kernel": plain.weight.detach(), "0.bias": plain.bias.detach()})
    assert calls == [layer, layer]
    assert torch.equal(layer.weight, plain.weight)


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_hooks_stay_where_one_raises(kind):
    layer = LAYERS[kind]()
    layer.register_load_state_dict_pre_hook(lambda *_: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            layer.load_state_dict(LAYERS[kind]().state_dict())


@pytest.mark.parametrize("slice_dim", range(4))
@pytest.mark.parametrize("assign", [False, True])
def test_parameters_as_a_state_dict(assign, slice_dim):
    plain, layer = nn.Conv2d(4, 6, 3), layer_of(slice_dim=slice_dim)
    layer.load_state_dict(dict(plain.named_parameters()), assign=assign)
    assert torch.equal(layer.weight, plain.weight)
    assert all(p.requires_grad and p.is_leaf for p in layer.parameters())
    assert not any(buffer.requires_grad for buffer in layer.buffers())


@pytest.mark.parametrize("kind", sorted(LAYERS))
@pytest.mark.parametrize("assign", [False, True])
def test_what_is_frozen_stays_so(assign, kind):
    plain, layer = nn.Conv2d(4, 6, 3), LAYERS[kind]()
    learned, kept = list(dict(layer.named_parameters())), list(dict(layer.named_buffers()))
    layer.load_state_dict(plain.state_dict(keep_vars=True), assign=assign)
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.bias, plain.bias)
    assert list(dict(layer.named_parameters())) == learned
    assert list(dict(layer.named_buffers())) == kept
    assert all(p.requires_grad and p.is_leaf for p in layer.parameters())
    assert not any(buffer.requires_grad for buffer in layer.buffers())


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("slice_dim", range(2))
@pytest.mark.parametrize("learned", [0, 2, 1.0])
def test_a_layer_made_of_a_layer_learns(learned, slice_dim, grad):
    start = layer_of(learned=learned, slice_dim=slice_dim)
    with torch.set_grad_enabled(grad):
        layer = MaskedConv2d.from_conv2d(start, learned=3)
    assert all(parameter.requires_grad for parameter in layer.parameters())
    assert torch.equal(layer.weight, start.weight)
    if learned:
        start.learned.requires_grad_(False)
        layer = MaskedConv2d.from_conv2d(start, learned=3)
        assert not layer.learned.requires_grad
        assert layer.bias_learned.requires_grad
