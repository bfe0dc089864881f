"""Scalars at random positions of the weights as the only learned parameters."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from maskedconv import (
    conversion_report,
    convert_,
    count_parameters,
    load,
    merge_,
    methods,
    models,
    save,
)
from maskedconv.checkpoint import file, load_plain
from maskedconv.nn.distributed import _frozen_names
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.positions import PositionsConv2d, PositionsLinear
from maskedconv.runs.weights import describe_first_layer, describe_layers

COUNT = 1120


def network(seed=0, **options):
    method = methods.random_positions(COUNT)
    return models.create("resnet_14", seed=seed, method=method, **options)


def layers_of(model):
    return [module for module in model.modules() if isinstance(module, PartlyLearned)]


def test_exactly_the_count_is_learned():
    model = network()
    counted = count_parameters(model)
    assert (counted.learned, counted.total) == (COUNT, 175_258)
    assert {type(layer) for layer in layers_of(model)} == {PositionsConv2d, PositionsLinear}
    for layer in layers_of(model):
        if layer.num_learned:
            assert (layer.positions.diff() > 0).all()
            assert 0 <= layer.positions[0] <= layer.positions[-1] < layer.frozen.numel()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(x), models.create("resnet_14", seed=0).eval()(x))


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), data=st.data())
@settings(max_examples=30)
def test_positions_are_drawn_without_replacement_over_all_layers(sizes, data):
    count = data.draw(st.integers(1, sum(sizes)))
    layers = [PositionsLinear(size, 1, bias=False) for size in sizes]
    methods.random_positions(count).finish(layers, 7)
    assert sum(layer.num_learned for layer in layers) == count
    start, chosen = 0, set()
    for layer in layers:
        chosen |= {start + int(at) for at in (layer.positions if layer.num_learned else ())}
        start += layer.frozen.numel()
    assert len(chosen) == count
    expected = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(7))[:count]
    assert chosen == set(expected.tolist())


def test_more_than_there_are():
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    with pytest.raises(ValueError, match="count is 19; expected at most 18"):
        convert_(model, method=methods.random_positions(19))
    assert type(model[0]) is nn.Conv2d
    with pytest.raises(ValueError, match="count is 0; expected at least 1"):
        methods.random_positions(0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_values_and_gradients_are_those_of_the_plain_layer(kind, layout):
    if kind == "conv":
        plain = nn.Conv2d(4, 6, 3, 2, 1, groups=2, dtype=torch.float64).to(memory_format=layout)
        layer, x = PositionsConv2d.from_plain(plain), torch.randn(2, 4, 7, 7, dtype=torch.float64)
    else:
        plain = nn.Linear(5, 3, dtype=torch.float64)
        layer, x = PositionsLinear.from_plain(plain), torch.randn(4, 5, dtype=torch.float64)
    positions = torch.randperm(plain.weight.numel())[:11].sort().values
    layer.learn_(positions)
    assert [name for name, _ in layer.named_parameters()] == ["values"]
    with torch.no_grad():
        layer.values.normal_()
        plain.weight.copy_(layer.weight)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [module(one) for module, one in zip((plain, layer), inputs, strict=True)]
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(layer.values.grad, plain.weight.grad.flatten()[positions])

    def of_values(values):
        return torch.func.functional_call(layer, {"values": values}, (x,))

    assert torch.autograd.gradcheck(of_values, layer.values.detach().requires_grad_())


def _train(model, optimizer, steps=100):
    x, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()


@pytest.mark.parametrize("method", [methods.random_positions(30), methods.norm_only()])
@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.1), torch.optim.AdamW]
)
def test_nothing_else_moves_by_one_bit(method, make):
    model = models.create("resnet_8", num_classes=4, seed=1, method=method)
    learned = {id(p) for p in model.parameters() if p.requires_grad}
    before = {name: p.clone() for name, p in model.named_parameters()}
    weights = {name: m.weight.clone() for name, m in model.named_modules() if hasattr(m, "weight")}
    buffers = {
        f"{name}.{buffer}": tensor.clone()
        for name, layer in model.named_modules()
        if isinstance(layer, PartlyLearned)
        for buffer, tensor in layer.named_buffers()
    }
    optimizer = make(model.parameters())
    _train(model, optimizer)
    now = dict(model.named_buffers())
    assert all(torch.equal(now[name], tensor) for name, tensor in buffers.items())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) not in learned), name
    moved = sum(
        int((model.get_submodule(name).weight != old).sum()) for name, old in weights.items()
    )
    norms = isinstance(method, methods.norm_only)
    gammas = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert moved == gammas if norms else 0 < moved <= 30
    states = [s for state in optimizer.state.values() for s in state.values()]
    held = sum(s.numel() for s in states if isinstance(s, torch.Tensor) and s.dim())
    slots = 2 if isinstance(optimizer, torch.optim.AdamW) else 1
    assert held == slots * count_parameters(model).learned


def test_a_checkpoint_holds_the_learned_values(tmp_path):
    model = network(seed=3)
    for layer in layers_of(model):
        if layer.num_learned:
            layer.values.data.normal_()
    save(model, tmp_path / "learned")
    stored = file.read(tmp_path / "learned")
    held = {name: t.numel() for name, t in stored.tensors.items() if name.endswith(".values")}
    assert sum(held.values()) == COUNT
    assert not any(name.endswith((".frozen", ".positions")) for name in stored.tensors)
    assert stored.networks[0]["method"] == {"name": "random_positions", "count": COUNT}
    for other in (network(seed=3), _spoilt(network(seed=3)), _on_meta()):
        load(other, tmp_path / "learned")
        state = other.state_dict()
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match=r"num_learned is \d+ in the file; the model has \d+"):
        load(network(seed=4), tmp_path / "learned")
    save(model, tmp_path / "all", frozen=True)
    plain = models.create("resnet_14", learned=0.5)
    plain.load_state_dict(load_plain(tmp_path / "all"))
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain.eval()(x), model.eval()(x))


def _spoilt(model):
    for layer in layers_of(model):
        for buffer in layer.buffers():
            buffer.zero_()
    return model


def _on_meta():
    with torch.device("meta"):
        return network(seed=3)


def test_damaged_positions_are_refused(tmp_path):
    model = network(seed=3)
    layer = next(one for one in layers_of(model) if one.num_learned)
    name = next(name for name, one in model.named_modules() if one is layer)
    layer.positions.data[-1] = layer.frozen.numel()  # unnoticed
    save(model, tmp_path / "file", frozen=True)
    with pytest.raises(ValueError, match=f"layers.{name}.positions are not all within"):
        load_plain(tmp_path / "file")
    layer.positions = layer.positions.float()
    save(model, tmp_path / "file", frozen=True)
    with pytest.raises(ValueError, match=f"{name}.positions is float32; expected int64"):
        load_plain(tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight_shape": [3]}, r"weight_shape is \[3\]; expected 2 or 4 sizes"),
        ({"num_learned": 25}, "num_learned is 25; expected at most 24"),
    ],
)
def test_contradictions_in_a_configuration(changes, words):
    configuration = {**PositionsLinear(4, 6).configuration(), **changes}
    assert json.loads(json.dumps(configuration)) == configuration
    found = methods.random_positions.mistake(configuration)
    with pytest.raises(ValueError, match=words):
        raise ValueError(found)


@pytest.mark.parametrize("method", [methods.random_positions(9), methods.norm_only()])
def test_a_model_is_converted_and_merged(method):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False))
    x = torch.randn(2, 3, 6, 6)
    expected = model(x)
    total = count_parameters(model).total
    convert_(model, method=method, seed=2)
    assert conversion_report(model).converted == ("0", "2")
    counted = count_parameters(model)
    learned = 9 if isinstance(method, methods.random_positions) else 0
    assert (counted.learned, counted.total) == (learned + 8, total)
    torch.testing.assert_close(model(x), expected)
    copied = copy.deepcopy(model)
    merge_(model)
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]
    torch.testing.assert_close(model(x), expected)
    assert count_parameters(model).learned == total
    plain = model.state_dict()
    plain["0.weight"] = plain["0.weight"] + 1
    copied.load_state_dict(plain)
    assert torch.equal(copied[0].weight, model[0].weight + 1)


def test_a_network_is_merged():
    model = network().eval()
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    merge_(model)
    assert not layers_of(model)
    assert type(model.fc) is nn.Linear
    assert torch.equal(model(x), expected)


def test_parts_of_a_layer():
    layer = PositionsConv2d(3, 4, 3)
    layer.learn_(torch.tensor([0, 5]))
    assert [part.numel() for part in layer.weight_values()] == [2, 106]
    frozen = layer.to_frozen()
    assert torch.equal(frozen.weight, layer.weight)
    assert not list(frozen.parameters())
    with torch.no_grad():
        layer.weight.fill_(2.0)
    assert layer.values.tolist() == [2.0, 2.0]
    with pytest.raises(AttributeError, match="weight of a PositionsConv2d is assembled"):
        layer.weight = torch.zeros(4, 3, 3, 3)
    with pytest.raises(ValueError, match="no layer draws its own positions"):
        layer.drawn_from(0)
    model = nn.Sequential(layer)
    assert {"0.frozen", "0.positions", "0.bias"} <= _frozen_names(model)
    model = nn.Sequential(PositionsLinear(8, 2), layer)
    assert [one["kind"] for one in describe_layers(model)] == ["linear", "conv"]
    assert describe_first_layer(model)["shape"] == [4, 3, 3, 3]


def test_other_ways_to_call_and_copy_a_layer():
    layer = PositionsConv2d(3, 4, 3, padding="same", padding_mode="reflect")
    layer.learn_(torch.tensor([1, 7, 50]))
    assert "learned=3/108" in repr(layer)
    x = torch.randn(2, 3, 8, 8)
    expected = layer(x)
    for other in (
        torch.compile(layer, backend="eager", fullgraph=True),
        torch.export.export(layer, (x,)).module(),
        pickle.loads(pickle.dumps(layer)),
    ):
        assert torch.equal(other(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    halved = copy.deepcopy(layer).half()
    assert (halved.values.dtype, halved.positions.dtype) == (torch.float16, torch.int64)
    fresh = PositionsConv2d(3, 4, 3, padding="same", padding_mode="reflect")
    fresh.learn_(layer.positions)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), expected)
