"""A dense block as one Function against its layers one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.saved_bytes import saved_bytes
from maskedconv.methods import LayerFactory
from maskedconv.methods import slice as learned_slice
from maskedconv.models import densenet
from maskedconv.models.densenet import DenseBlock

FACTORIES = {
    "first filters": learned_slice(0.5).factory(),
    "input channels": learned_slice(0.5, 1).factory(),
    "kernel rows": learned_slice(1, 2).factory(),
    "no filters": learned_slice(0).factory(),
    "zero filters": learned_slice(0.5, 0, "zero").factory(),
    "all": learned_slice(1.0).factory(),
    "plain": LayerFactory(),
}


FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture
def used(monkeypatch):
    """Whether each call of a block was one Function."""
    found = []
    whole = densenet.dense_block

    def recorded(*arguments):
        result = whole(*arguments)
        found.append(result is not None)
        return result

    monkeypatch.setattr(densenet, "dense_block", recorded)
    return found


def make_block(factory="first filters", dtype=torch.float64, layers=3):
    torch.manual_seed(0)
    block = DenseBlock(FACTORIES[factory], 6, layers, 4).to(dtype)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return block


def make_input(memory_format=torch.channels_last, dtype=torch.float64):
    x = torch.randn(3, 6, 7, 5, dtype=dtype).to(memory_format=memory_format)
    return x.requires_grad_()


def results(block, x, run=None):
    """Output, gradients by name, and buffers, of a copy of ``block``."""
    block, x = copy.deepcopy(block), x.detach().clone().requires_grad_(x.requires_grad)
    out = (run or type(block).forward)(block, x)
    (out.square() + out).sin().sum().backward()
    grads = {name: part.grad for name, part in block.named_parameters()}
    return {"out": out.detach(), "x": x.grad, **grads, **dict(block.named_buffers())}


def assert_equal(block, x):
    found, expected = results(block, x), results(block, x, DenseBlock._layer_by_layer)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("factory", FACTORIES)
def test_equals_the_layers_one_by_one(factory, memory_format, training, used):
    assert_equal(make_block(factory).train(training), make_input(memory_format))
    assert used == [True]


@pytest.mark.parametrize("factory", FACTORIES)
def test_equals_plain_modules(factory):
    block, x = make_block(factory), make_input()
    found = results(block, x)

    def plain(block, x):
        for layer in block:
            new = layer.conv1(layer.bn1(x).relu())
            x = torch.cat((x, layer.conv2(layer.bn2(new).relu())), 1)
        return x

    for name, value in results(block, x, plain).items():
        torch.testing.assert_close(found[name], value, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_types_of_the_kernels(dtype, used):
    block, x = make_block(dtype=dtype), make_input(dtype=dtype)
    exact = results(copy.deepcopy(block).double(), x.double())
    found, one_by_one = results(block, x), results(block, x, DenseBlock._layer_by_layer)
    assert used == [True, True]
    for name, value in exact.items():
        error, allowed = (
            (result[name].double() - value).abs().max() for result in (found, one_by_one)
        )
        roundings = 4 * torch.finfo(dtype).eps * value.abs().max()
        assert error <= 2 * allowed + roundings, name


@pytest.mark.parametrize("frozen", ["bn1", "bn2", "conv1", "conv2", "0.", "1.", "2.", "x"])
def test_what_needs_no_gradient_gets_none(frozen, used):
    block, x = make_block(), make_input().requires_grad_(frozen != "x")
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(frozen not in name)
    assert_equal(block, x)
    found = results(block, x)
    assert (found["x"] is None) == (frozen == "x")
    names = [name for name, _ in block.named_parameters()]
    assert [found[name] is None for name in names] == [frozen in name for name in names]
    assert used == [True, True]


def test_biases():
    block = make_block("plain")
    for layer in block:
        layer.conv1.bias = nn.Parameter(torch.randn(16, dtype=torch.float64))
        layer.conv2.bias = nn.Parameter(torch.randn(4, dtype=torch.float64))
    assert_equal(block, make_input())


def hooked(block):
    block[1].conv2.register_forward_hook(lambda module, inputs, output: output * 2)


def hooked_as_a_layer(block):
    block[1].register_forward_hook(lambda module, inputs, output: output * 2)


class Doubled(densenet.Bottleneck):
    def forward(self, x, moments=None):
        return 2 * super().forward(x, moments)


def of_another_class(block):
    block[1].__class__ = Doubled


def with_another_norm(block):
    block[1].bn2 = nn.GroupNorm(4, 16).double()


@pytest.mark.parametrize("change", [hooked, hooked_as_a_layer, of_another_class, with_another_norm])
def test_other_modules_are_called(change, used):
    block = make_block()
    change(block)
    assert_equal(block, make_input())
    assert not any(used)


@pytest.mark.parametrize("slice_dim", [1, 2, 3])
def test_zeros_in_the_filters_are_left_to_the_layers(slice_dim, used):
    block = DenseBlock(learned_slice(0.5, slice_dim, "zero").factory(), 6, 2, 4).double()
    assert_equal(block, make_input())
    assert used == [False]


def test_a_convolution_of_another_type_raises_as_it_does_by_itself():
    block = make_block()
    block[0].conv1 = nn.Conv2d(6, 16, 1, bias=False, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="type"):
        block(make_input())


def test_without_gradients_nothing_is_kept(used):
    block, x = make_block(), make_input()
    with torch.no_grad():
        out = block(x)
    assert used == [False]
    torch.testing.assert_close(out, results(make_block(), x)["out"])


def test_autocast_computes_in_the_type_of_the_features(used):
    block = make_block(dtype=torch.float32)
    x = make_input(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        block(x)
        block(x.bfloat16())
    assert used == [False, True]


def test_the_given_gradient_is_not_changed():
    x = make_input()
    out = make_block()(x)
    grad = torch.randn_like(out)
    before = grad.clone()
    torch.autograd.grad(out, x, grad)
    assert torch.equal(grad, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("of_features", FORMATS, ids=str)
@pytest.mark.parametrize("given", ["contiguous", "channels_last", "expanded", "wider"])
def test_gradients_in_any_memory(given, of_features, dtype):
    block, x = make_block(dtype=dtype), make_input(of_features, dtype)
    values = torch.randn(3, 18, 7, 5, dtype=dtype)
    grad = {
        "contiguous": values,
        "channels_last": values.to(memory_format=torch.channels_last),
        "expanded": values[:, :1, :1, :1].expand_as(values),
        "wider": torch.cat((values, values), 1).to(memory_format=torch.channels_last)[:, :18],
    }[given]
    (found,) = torch.autograd.grad(block(x), x, grad)
    (expected,) = torch.autograd.grad(block._layer_by_layer(x), x, grad)
    torch.testing.assert_close(found, expected)


def test_two_backward_passes_of_one_graph():
    block, x = make_block(), make_input()
    out = block(x)
    grad = torch.randn_like(out)
    inputs = (x, *block.parameters())
    first = torch.autograd.grad(out, inputs, grad, retain_graph=True)
    again = torch.autograd.grad(out, inputs, grad)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(out, inputs, grad)


def test_a_change_in_place_is_refused():
    block = make_block()
    out = block(make_input())
    with torch.no_grad():
        block[0].bn1.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_a_single_value_for_each_channel_is_refused():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        make_block()(torch.randn(1, 6, 1, 1, dtype=torch.float64))


def test_no_layers():
    x = make_input()
    assert torch.equal(make_block(layers=0)(x), x)


def test_no_more_is_kept_than_layer_by_layer():
    block, x = make_block(layers=6), make_input()
    whole, one_by_one = (
        saved_bytes(lambda run=run: run(block, x), block.parameters())
        for run in (DenseBlock.forward, DenseBlock._layer_by_layer)
    )
    assert 0 < whole <= one_by_one
