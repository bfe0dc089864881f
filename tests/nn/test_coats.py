"""Multicoated supermasks against float64 references that are written from the formulae."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from maskedconv import convert_, count_kept, load, merge_, methods, models, save
from maskedconv.checkpoint import load_plain
from maskedconv.counting import count_inference_bytes
from maskedconv.functional.supermask import MaskPlan, supermask_weight
from maskedconv.nn import SupermaskConv2d, SupermaskLinear
from maskedconv.slices import nested_kept, num_kept
from maskedconv.supermasks import Supermasks

fractions = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


def coats_by_sorting(scores, kept):
    """How many of the masks keep each weight: each keeps the last of a stable ascending sort."""
    order = scores.abs().flatten().sort(stable=True).indices
    coats = torch.zeros(scores.numel(), dtype=torch.float64)
    for number in kept:
        coats[order[scores.numel() - number :]] += 1
    return coats.view(scores.shape)


@given(k=fractions, coats=st.integers(1, 9), size=st.integers(0, 200))
def test_sizes_of_nested_masks(k, coats, size):
    kept = nested_kept(k, coats, size)
    assert kept[0] == num_kept(k, size)
    assert list(kept) == sorted(kept, reverse=True)
    for i, number in enumerate(kept):
        exact = Fraction(str(k)) * (coats - i) * size / coats
        assert exact <= number < exact + 1


@settings(max_examples=60)
@given(
    levels=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
    k=fractions,
    coats=st.integers(1, 5),
)
def test_value_and_gradient(levels, k, coats):
    scores = torch.tensor([levels], dtype=torch.float64, requires_grad=True)
    weight, grad = torch.randn_like(scores).detach(), torch.randn_like(scores)
    kept, *inner = nested_kept(k, coats, len(levels))
    output = supermask_weight(scores, weight, MaskPlan(kept, inner=tuple(inner)))
    output.backward(grad)
    expected = coats_by_sorting(scores.detach(), [kept, *inner])
    assert torch.equal(output, weight * expected)
    torch.testing.assert_close(scores.grad, coats * grad * weight * scores.detach().sign())


def test_convolution():
    layer = SupermaskConv2d(3, 4, 3, padding=1, k=0.5, coats=3, seed=1)
    input = torch.randn(2, 3, 6, 6)
    kept = [math.ceil(Fraction(1, 2) * 108 * i / 3) for i in (3, 2, 1)]
    coats = coats_by_sorting(layer.scores.detach(), kept)
    weight = (layer.frozen.double() * coats).requires_grad_()
    expected = F.conv2d(input.double(), weight, None, 1, 1)
    output = layer(input)
    grad = torch.randn_like(output)
    output.backward(grad)
    expected.backward(grad.double())
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)
    passed = 3 * weight.grad * layer.frozen.double() * layer.scores.detach().double().sign()
    torch.testing.assert_close(layer.scores.grad.double(), passed, atol=1e-5, rtol=1e-5)
    assert torch.equal(layer.coats, coats.to(torch.uint8))
    assert torch.equal(layer.mask, coats > 0)
    assert layer.num_kept == 54
    assert torch.equal(copy.deepcopy(layer).weight, layer.weight)


def test_one_coat_is_an_ordinary_supermask():
    one, plain = (SupermaskLinear(9, 7, k=0.4, seed=0, **o) for o in ({"coats": 1}, {}))
    input = torch.randn(2, 9)
    for layer in (one, plain):
        layer(input).square().sum().backward()
    assert torch.equal(one(input), plain(input))
    assert torch.equal(one.scores.grad, plain.scores.grad)
    assert one.configuration() == plain.configuration()
    assert "coats" not in one.configuration()
    assert methods.supermask(0.4, coats=1).settings() == {
        "method": {
            "name": "supermask",
            "k": 0.4,
            "weights": "signed_constant",
            "scale": True,
            "threshold": "layer",
            "norm_learned": False,
        }
    }


@pytest.mark.parametrize("autocast", [False, True])
def test_compiled(autocast):
    layer = SupermaskConv2d(2, 3, 3, k=0.4, coats=2, seed=0)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    input, grads = torch.randn(2, 2, 5, 5), []
    for forward in (compiled, layer):
        layer.scores.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = forward(input)
        output.sum().backward()
        grads.append(layer.scores.grad)
    assert grads[1].count_nonzero() > 0
    torch.testing.assert_close(*grads)


def network(coats, seed):
    method = methods.supermask(0.3, coats=coats)
    return models.create("conv2", method=method, seed=seed, image_size=16)


def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("coats", "digits"), [(2, 2), (3, 2), (7, 3)])
def test_checkpoints(tmp_path, coats, digits):
    model = network(coats, seed=0)
    save(model, tmp_path / "bits", masks=True)
    save(model, tmp_path / "scores")
    for file in ("bits", "scores"):
        other = load(network(coats, seed=1), tmp_path / file)
        assert torch.equal(other(images()), model(images()))
    assert torch.equal(other.fc[0].scores, model.fc[0].scores)
    weights = sum(p.numel() for p in model.parameters())
    assert digits * weights / 8 <= (tmp_path / "bits").stat().st_size < digits * weights / 8 + 8000
    assert count_inference_bytes(model).stored >= digits * weights / 8
    for wrong in (network(1, seed=0), network(coats + 1, seed=0)):
        with pytest.raises(ValueError, match=rf"coats is {coats} in the file; the model has"):
            load(wrong, tmp_path / "bits")
    save(network(1, seed=0), tmp_path / "one")
    with pytest.raises(ValueError, match=rf"coats is 1 in the file; the model has {coats}"):
        load(model, tmp_path / "one")


def test_plain_values(tmp_path):
    model = network(3, seed=0)
    save(model, tmp_path / "file", frozen=True, masks=True)
    plain = models.create("conv2", image_size=16)
    plain.load_state_dict(load_plain(tmp_path / "file"))
    torch.testing.assert_close(plain(images()), model(images()))


def test_merging_and_counting():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(64, 2))
    convert_(model, method=methods.supermask(0.5, coats=2), seed=0, include="0")
    input = torch.randn(2, 3, 6, 6)
    output, coats = model(input), model[0].coats
    assert count_kept(model).kept == 54 == int((coats > 0).sum())
    assert int((coats == 2).sum()) == 27
    merge_(model)
    assert type(model[0]) is nn.Conv2d
    torch.testing.assert_close(model(input), output)


def test_tasks():
    model = network(3, seed=0)
    tasks, outputs = Supermasks(model.eval()), {}
    for name in ("first", "second"):
        tasks.reset_scores()
        tasks.add(name)
        outputs[name] = model(images())
    for name in ("first", "second"):
        tasks.switch(name)
        assert torch.equal(model(images()), outputs[name])
        assert model.fc[0].num_kept == num_kept(0.3, model.fc[0].num_learned)
    assert tasks.nbytes("first") == 2 * sum(p.numel() for p in model.parameters()) // 8


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        (methods.supermask, {"coats": 0}, ValueError, "coats is 0; expected at least 1"),
        (methods.supermask, {"coats": 256}, ValueError, "coats is 256; expected at most 255"),
        (methods.supermask, {"coats": 2.0}, TypeError, "coats is 2.0"),
        (methods.biprop, {"coats": 2}, ValueError, "coats is 2; expected 1 for the binary"),
        (
            methods.supermask,
            {"coats": 2, "threshold": "global"},
            ValueError,
            "coats is 2; expected 1 under threshold='global'",
        ),
    ],
)
def test_settings_are_checked(method, options, error, message):
    with pytest.raises(error, match=message):
        method(**options)
    layer = method.layer
    with pytest.raises(error, match=message):
        layer(2, 2, 1, **options)
