"""Supermask layers against float64 references that are written from the formulae."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from supermasks import kept_by_sort
from torch import nn
from torch.nn import functional as F

from bench.saved_bytes import saved_bytes
from maskedconv.functional.binary import binary_sign
from maskedconv.nn import BipropConv2d, BipropLinear, SupermaskConv2d, SupermaskLinear
from maskedconv.nn.global_threshold import share_threshold, update_thresholds
from maskedconv.slices import num_kept

LAYERS = {
    "supermask": (SupermaskConv2d, SupermaskLinear),
    "biprop": (BipropConv2d, BipropLinear),
}


def kept_by_sorting(scores, k):
    """The mask of the share ``k`` of the scores."""
    return kept_by_sort(scores, num_kept(k, scores.numel()))


def reference_weight(layer, mask):
    """The masked weight in float64, differentiable towards |score| by a straight-through mask."""
    scores = layer.scores.detach().double().requires_grad_()
    magnitude = scores.abs()
    weight = layer.frozen.double()
    soft = mask.double() + magnitude - magnitude.detach()
    if layer.method == "supermask":
        return scores, weight * soft
    alpha = weight[mask].abs().mean() if mask.any() else weight.new_zeros(())
    # The value is sign(W) alpha mask; the mask's gradient is multiplied by |W| (and not by alpha).
    binary = weight.sign() * alpha * mask
    passed = weight.sign() * weight.abs() * soft
    return scores, binary + passed - passed.detach()


@pytest.mark.parametrize("k", [0, 0.3, 0.5, 1])
@pytest.mark.parametrize("method", LAYERS)
def test_convolution(method, k):
    layer = LAYERS[method][0](3, 4, 3, padding=1, stride=2, k=k, seed=1)
    input = torch.randn(2, 3, 6, 6, requires_grad=True)
    mask = kept_by_sorting(layer.scores.detach(), k)
    scores, weight = reference_weight(layer, mask)
    exact = input.detach().double().requires_grad_()
    expected = F.conv2d(exact, weight, None, 2, 1)
    output = layer(input)
    grad = torch.randn_like(output)
    output.backward(grad)
    expected.backward(grad.double())
    assert torch.equal(layer.mask, mask)
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer.scores.grad.double(), scores.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(input.grad.double(), exact.grad, atol=1e-5, rtol=1e-5)
    assert not layer.frozen.requires_grad


@pytest.mark.parametrize("method", LAYERS)
def test_fully_connected(method):
    layer = LAYERS[method][1](5, 3, k=0.4, seed=1)
    input = torch.randn(7, 5)
    scores, weight = reference_weight(layer, kept_by_sorting(layer.scores.detach(), 0.4))
    expected = input.double() @ weight.T
    output = layer(input)
    output.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer.scores.grad.double(), scores.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_weights(dtype):
    constant = SupermaskConv2d(8, 4, 3, k=0.25, seed=0, dtype=dtype)
    sigma = math.sqrt(2) / math.sqrt(8 * 3 * 3) / math.sqrt(0.25)
    expected = torch.full_like(constant.frozen, sigma)
    torch.testing.assert_close(constant.frozen.abs(), expected)
    assert constant.frozen.unique().numel() == 2
    unscaled = SupermaskConv2d(8, 4, 3, k=0.25, scale=False, seed=0, dtype=dtype)
    torch.testing.assert_close(unscaled.frozen * 2, constant.frozen)
    normal = SupermaskLinear(400, 100, weights="kaiming", k=0.5, seed=0, dtype=dtype)
    expected = math.sqrt(2 / 400) / math.sqrt(0.5)
    assert normal.frozen.std().item() == pytest.approx(expected, rel=0.02)
    bound = 1 / math.sqrt(8 * 3 * 3)
    assert 0.9 * bound < constant.scores.abs().max() <= bound


@settings(max_examples=40)
@given(
    levels=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
    k=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]),
)
def test_exactly_k_are_kept_under_ties(levels, k):
    layer = SupermaskLinear(len(levels), 1, k=k)
    layer.scores.data.copy_(torch.tensor([levels], dtype=torch.float32))
    assert layer.num_kept == int(layer.mask.sum()) == num_kept(k, len(levels))
    assert torch.equal(layer.mask, kept_by_sorting(layer.scores.detach(), k))


@pytest.mark.parametrize("method", LAYERS)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_nothing_but_the_scores_moves(method, optimizer):
    conv, linear = LAYERS[method]
    model = nn.Sequential(
        conv(1, 4, 3, seed=0), nn.BatchNorm2d(4, affine=False), nn.Flatten(), linear(16, 2, seed=1)
    )
    before = copy.deepcopy(model)
    options = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    steps = optimizer(model.parameters(), lr=0.1, weight_decay=5e-4, **options)
    for _ in range(100):
        steps.zero_grad()
        model(torch.randn(4, 1, 4, 4)).square().sum().backward()
        steps.step()
    for index in (0, 3):
        assert torch.equal(model[index].frozen, before[index].frozen)
        assert not torch.equal(model[index].scores, before[index].scores)
        assert model[index].num_kept == before[index].num_kept


def global_network(k=0.3):
    torch.manual_seed(0)
    options = {"k": k, "threshold": "global"}
    model = nn.Sequential(
        SupermaskConv2d(2, 3, 3, **options), nn.Flatten(), SupermaskLinear(12, 2, **options)
    )
    share_threshold(model)
    return model


def test_one_threshold_for_a_network():
    model = global_network()
    # Equal scores in both layers: the later ones are kept.
    model[2].scores.data.fill_(0.1)
    model[0].scores.data[0] = 0.1
    model(torch.randn(2, 2, 4, 4))
    scores = torch.cat([model[index].scores.detach().flatten() for index in (0, 2)])
    mask = kept_by_sorting(scores, 0.3)
    assert torch.equal(torch.cat([model[index].mask.flatten() for index in (0, 2)]), mask)
    assert model[0].num_kept + model[2].num_kept == num_kept(0.3, scores.numel())


def test_a_layer_may_keep_nothing_under_a_global_threshold():
    model = nn.Sequential(
        BipropConv2d(1, 2, 1, threshold="global"), BipropConv2d(2, 2, 1, threshold="global")
    )
    share_threshold(model)
    model[0].scores.data.fill_(0.01)
    model[1].scores.data.fill_(1.0)
    output = model(torch.ones(1, 1, 2, 2))
    assert model[0].num_kept == 0
    assert output.eq(0).all()
    output.sum().backward()
    assert model[1].scores.grad is not None


def test_a_stale_threshold_is_refused():
    model = global_network()
    with pytest.raises(RuntimeError, match="threshold of the network is not known"):
        model[0].weight  # noqa: B018
    update_thresholds(model)
    known = model[0].mask
    with torch.no_grad():
        model[0].scores.neg_()
    with pytest.raises(RuntimeError, match="call the network"):
        model[0].mask  # noqa: B018
    update_thresholds(model)
    assert torch.equal(model[0].mask, known)
    model[2].settings = model[2].settings._replace(k=0.5)
    with pytest.raises(ValueError, match=r"k is \[0.3, 0.5\]"):
        update_thresholds(model)


def test_copies_keep_the_threshold():
    model = global_network()
    input = torch.randn(2, 2, 4, 4)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(input), model(input))
        assert torch.equal(other[0].mask, model[0].mask)


@pytest.mark.parametrize("method", LAYERS)
def test_compiled(method):
    layer = LAYERS[method][0](2, 3, 3, k=0.4, seed=0)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    input = torch.randn(2, 2, 5, 5)
    output = compiled(input)
    torch.testing.assert_close(output, layer(input))
    output.square().sum().backward()
    grad, layer.scores.grad = layer.scores.grad, None
    layer(input).square().sum().backward()
    torch.testing.assert_close(grad, layer.scores.grad)


def test_autocast():
    layer = SupermaskConv2d(2, 3, 3, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(torch.randn(2, 2, 5, 5))
    assert output.dtype is torch.bfloat16
    output.float().sum().backward()
    assert layer.scores.grad.dtype is torch.float32


def test_backward_keeps_no_tensor_of_the_weights_size_besides_the_masked_weight():
    layer = SupermaskLinear(64, 64, seed=0)
    input = torch.randn(1, 64, requires_grad=True)
    kept = saved_bytes(lambda: layer(input), [layer.scores, layer.frozen])
    assert layer.frozen.nbytes <= kept < 2 * layer.frozen.nbytes


def test_layers_share_a_weight():
    one = SupermaskLinear(4, 4, seed=0)
    other = SupermaskLinear(4, 4, frozen=one.frozen)
    assert not torch.equal(one.mask, other.mask) or not torch.equal(one.scores, other.scores)
    model = nn.Sequential(one, other)
    for moved in (copy.deepcopy(model), model.double(), model.half()):
        assert moved[0].frozen is moved[1].frozen
        assert moved[0].frozen.dtype is moved[0].scores.dtype


@pytest.mark.parametrize("seed", [None, 3])
def test_a_weight_that_was_given_is_not_drawn(seed):
    weight = torch.randn(4, 4)
    before = weight.clone()
    layer = SupermaskLinear(4, 4, frozen=weight, seed=seed)
    start = layer.scores.detach().clone()
    nn.init.zeros_(layer.scores)
    layer.reset_parameters()
    assert layer.frozen is weight
    assert torch.equal(weight, before)
    assert layer.scores.count_nonzero()
    assert torch.equal(layer.scores, start) == (seed is not None)


def test_a_reset_gives_the_start_again():
    layer, start = (SupermaskLinear(4, 4, weights="kaiming", seed=3) for _ in range(2))
    layer.frozen.zero_()
    nn.init.zeros_(layer.scores)
    layer.reset_parameters()
    assert torch.equal(layer.frozen, start.frozen)
    assert torch.equal(layer.scores, start.scores)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((2, 2, 1), {"bias": True}, ValueError, "bias is True; expected False"),
        ((2, 2, 1), {"k": 2.0}, ValueError, "k is 2.0; expected a fraction"),
        ((2, 2, 1), {"weights": "ones"}, ValueError, "weights is 'ones'; expected one of signed"),
        ((2, 2, 1), {"scale": 1}, TypeError, "scale is 1; expected a bool"),
        ((2, 2, 1), {"threshold": "none"}, ValueError, "threshold is 'none'; expected one of"),
        ((2, 2, 1), {"seed": 1.5}, TypeError, "seed is 1.5"),
        ((2, 2, 1), {"frozen": torch.ones(2, 2)}, ValueError, r"frozen is \[2, 2\] of .*; exp"),
        ((2, 3, 1, 1, 0, 1, 2), {}, ValueError, "divisible by groups"),
    ],
)
def test_arguments_are_checked(arguments, options, error, message):
    with pytest.raises(error, match=message):
        SupermaskConv2d(*arguments, **options)


def test_the_weight_cannot_be_replaced():
    layer = SupermaskConv2d(2, 2, 1)
    with pytest.raises(AttributeError, match="weight of a SupermaskConv2d is computed"):
        layer.weight = torch.ones(2, 2, 1, 1)


def test_binary_sign():
    input = torch.tensor([-2.0, -1.0, -0.25, 0.5, 1.5], requires_grad=True)
    output = binary_sign(input)
    output.backward(torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0]))
    assert output.tolist() == [-1, -1, -1, 1, 1]
    assert input.grad.tolist() == [0, 0, 3, 1, 0]
    values = input.detach()
    transformed = torch.func.vmap(torch.func.grad(binary_sign))(values)
    assert transformed.tolist() == [0, 0, 1.5, 1, 0]
    assert torch.func.vmap(binary_sign)(values).tolist() == output.tolist()
