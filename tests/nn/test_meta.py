"""Layers with all or some values on the meta device."""

from __future__ import annotations

import math
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from maskedconv import MaskedConv2d, load, models, save


@contextmanager
def empty_weights(include_buffers=False):
    """Moves registered tensors to the meta device, like accelerate's ``init_empty_weights``."""
    parameter, buffer = nn.Module.register_parameter, nn.Module.register_buffer

    def register_parameter(module, name, param):
        parameter(module, name, param)
        if param is not None:
            own = module._parameters
            own[name] = nn.Parameter(own[name].to("meta"), requires_grad=param.requires_grad)

    def register_buffer(module, name, tensor, persistent=True):
        buffer(module, name, tensor, persistent=persistent)
        if tensor is not None:
            module._buffers[name] = module._buffers[name].to("meta")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "register_parameter", register_parameter)
        if include_buffers:
            patch.setattr(nn.Module, "register_buffer", register_buffer)
        yield


def layer_of(learned=2, seed=3, slice_dim=0):
    return MaskedConv2d(4, 6, 3, learned=learned, seed=seed, slice_dim=slice_dim)


@pytest.mark.parametrize("learned", [0, 2, 1.0])
@pytest.mark.parametrize("slice_dim", [0, 2])
def test_frozen_filters_are_drawn_beside_empty_parameters(learned, slice_dim):
    with empty_weights():
        layer = layer_of(learned, slice_dim=slice_dim)
    start = layer_of(learned, slice_dim=slice_dim)
    assert all(parameter.is_meta for parameter in layer.parameters())
    for name, buffer in start.named_buffers():
        assert torch.equal(layer.get_buffer(name), buffer), name
    if learned == 2:
        weight = layer.weight
        assert torch.equal(weight.narrow(slice_dim, 2, layer.num_frozen), start.frozen)
        assert weight.narrow(slice_dim, 0, 2).isnan().all()


def test_frozen_filters_without_a_seed():
    torch.manual_seed(0)
    start = layer_of(seed=None)
    torch.manual_seed(0)
    with empty_weights():
        layer = layer_of(seed=None)
        assert torch.equal(layer.frozen, start.frozen)
        nn.init.normal_(layer.weight, 0, 100)
    assert layer.frozen.std() > 10
    assert layer.learned.is_meta


def test_nothing_is_drawn_where_all_is_empty():
    state = torch.get_rng_state()
    with empty_weights(include_buffers=True):
        layer = layer_of(seed=None)
    assert torch.equal(torch.get_rng_state(), state)
    assert layer.weight.is_meta
    assert layer.bias.is_meta


@pytest.mark.parametrize("include_buffers", [False, True])
def test_made_anew_from_the_seed(include_buffers):
    with empty_weights(include_buffers):
        layer = layer_of()
    layer.to_empty(device="cpu").reset_parameters()
    assert torch.equal(layer.weight, layer_of().weight)
    assert torch.equal(layer.bias, layer_of().bias)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("slice_dim", range(4))
def test_assigned_state_dict(slice_dim, plain):
    start = layer_of(slice_dim=slice_dim)
    state = (start.to_conv2d() if plain else start).state_dict()
    with empty_weights(include_buffers=True):
        layer = layer_of(slice_dim=slice_dim, seed=9)
    layer.load_state_dict(state, assign=True)
    assert torch.equal(layer.weight, start.weight)
    assert torch.equal(layer.bias, start.bias)
    # No part is a view of memory that also contains the other part.
    for tensor in (*layer.parameters(), *layer.buffers()):
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
    version = layer.frozen._version
    layer(torch.randn(2, 4, 5, 5)).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    assert layer.frozen._version == version
    assert torch.equal(layer.frozen, start.frozen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1])
def test_assigned_to_a_layer_that_learns_nothing(slice_dim, frozen, dtype):
    """What is not learned has no values, and takes the type and place of those that are there."""
    options = {"learned": 0, "frozen": frozen, "slice_dim": slice_dim}
    start = MaskedConv2d(4, 6, 3, **options).to(dtype)
    x = torch.randn(2, 4, 5, 5, dtype=dtype)
    with torch.device("meta"):
        layer = MaskedConv2d(4, 6, 3, **options)
    layer.load_state_dict(start.state_dict(), assign=True)
    for moved in (layer, layer.to("cpu")):
        assert moved(x).dtype == dtype
        assert torch.equal(moved(x), start(x))
    assert layer.learned.device == x.device
    assert layer.double()(x.double()).dtype == layer.learned.dtype == torch.float64


def test_what_has_values_is_not_moved_off_the_meta_device():
    for learned in (0, 2):
        with torch.device("meta"):
            layer = layer_of(learned)
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            layer.to("cpu")


@pytest.mark.parametrize("how", ["device", "parameters", "all"])
def test_a_network_without_values_loads_a_checkpoint(how, tmp_path):
    """The file contains the learned part; frozen filters are drawn again from the seed."""
    options = {"learned": 0.25, "seed": 0}
    model = models.create("wrn_10_1", **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    save(model, tmp_path / "model.safetensors")
    contexts = {
        "device": torch.device("meta"), "parameters": empty_weights(), "all": empty_weights(True),
    }  # fmt: skip
    with contexts[how]:
        empty = models.create("wrn_10_1", **options)
    assert empty.conv1.frozen.is_meta  # not values of another draw
    load(empty, tmp_path / "model.safetensors")
    for key, value in model.state_dict().items():
        assert torch.equal(empty.state_dict()[key], value), key
    assert math.isclose(empty.conv1.frozen.std(), math.sqrt(2 / (9 * 16)), rel_tol=0.2)
