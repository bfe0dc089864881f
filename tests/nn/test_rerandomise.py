"""Weights that the masks leave out are drawn anew; those that they keep do not move."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from maskedconv import load, merge_, methods, models, save
from maskedconv.counting import count_inference_bytes
from maskedconv.nn import SupermaskConv2d, SupermaskLinear
from maskedconv.nn.global_threshold import share_threshold
from maskedconv.nn.rerandomise import rerandomise_, rerandomises
from maskedconv.supermasks import Supermasks


def network(every=2, **options):
    return nn.Sequential(
        SupermaskConv2d(3, 4, 3, seed=0, rerandomise_every=every, **options),
        nn.Flatten(),
        SupermaskLinear(64, 8, seed=1, rerandomise_every=every, **options),
    )


def frozen_of(model):
    return [model[index].frozen.clone() for index in (0, 2)]


@settings(max_examples=40)
@given(
    k=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    fraction=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    weights=st.sampled_from(["signed_constant", "kaiming", "uniform"]),
    coats=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**40),
)
def test_kept_weights_and_scores_do_not_move(k, fraction, weights, coats, seed):
    options = {"k": k, "weights": weights, "coats": coats, "rerandomise_fraction": fraction}
    model = network(**options)
    before = copy.deepcopy(model)
    rerandomise_(model, 2, seed)
    for index in (0, 2):
        mask = before[index].mask
        assert torch.equal(model[index].frozen[mask], before[index].frozen[mask])
        assert torch.equal(model[index].scores, before[index].scores)
        assert torch.equal(model[index].weight, before[index].weight)
        moved = model[index].frozen != before[index].frozen
        if fraction == 0 or k == 1:
            assert not moved.any()
        if fraction == 1 and weights != "signed_constant":
            assert torch.equal(moved, ~mask)
    again = copy.deepcopy(before)
    rerandomise_(again, 2, seed)
    assert all(map(torch.equal, frozen_of(again), frozen_of(model)))


def test_fraction_and_distribution():
    layer = SupermaskLinear(400, 400, k=0.5, weights="kaiming", seed=0, rerandomise_every=1)
    before = layer.frozen.clone()
    rerandomise_(layer, 1, seed=0)
    moved = layer.frozen != before
    # 80000 weights, each with the probability 0.1: five standard deviations are 425.
    assert abs(int(moved.sum()) - 8000) < 425
    sigma = (2 / 400) ** 0.5 / 0.5**0.5
    assert layer.frozen[moved].std().item() == pytest.approx(sigma, rel=0.05)
    constant = SupermaskLinear(400, 400, k=0.5, seed=0, rerandomise_every=1)
    magnitude = constant.frozen.abs().clone()
    rerandomise_(constant, 1, seed=0)
    assert torch.equal(constant.frozen.abs(), magnitude)


def test_layers_of_one_shape_are_drawn_apart():
    options = {"k": 0.0, "weights": "kaiming", "rerandomise_every": 1, "rerandomise_fraction": 1.0}
    model = nn.Sequential(*(SupermaskLinear(8, 8, seed=0, **options) for _ in range(2)))
    assert torch.equal(model[0].frozen, model[1].frozen)
    rerandomise_(model, 1, seed=0)
    assert not torch.equal(model[0].frozen, model[1].frozen)


def test_only_at_its_steps():
    model = network(every=3)
    before = frozen_of(model)
    for step in (1, 2, 4, 5):
        rerandomise_(model, step, seed=0)
    assert all(map(torch.equal, frozen_of(model), before))
    found = []
    for step, seed in ((3, 0), (6, 0), (3, 1)):
        other = copy.deepcopy(model)
        rerandomise_(other, step, seed)
        found.append(other[0].frozen)
    assert len({tuple(frozen.flatten().tolist()) for frozen in [*found, before[0]]}) == 4


def test_never_by_default():
    model = network(every=0)
    before = frozen_of(model)
    for step in range(1, 5):
        rerandomise_(model, step, seed=0)
    assert all(map(torch.equal, frozen_of(model), before))
    assert not rerandomises(model)
    assert "rerandomise_every" not in model[0].configuration()
    assert model[0].frozen_buffers() == ("frozen",)
    named = methods.supermask(rerandomise_every=0, rerandomise_fraction=0.1).settings()
    assert named == methods.supermask().settings()
    assert named["method"].keys() == {
        "name", "k", "weights", "scale", "threshold", "norm_learned"
    }  # fmt: skip


def test_global_threshold():
    model = network(threshold="global", rerandomise_fraction=1.0, weights="kaiming")
    share_threshold(model)
    model(torch.randn(1, 3, 6, 6))
    with torch.no_grad():
        model[0].scores.neg_()
    before = frozen_of(model)
    rerandomise_(model, 2, seed=0)
    for index, frozen in zip((0, 2), before, strict=True):
        assert torch.equal(model[index].frozen != frozen, ~model[index].mask)


def test_layers_that_are_not_learned_stay():
    model = network(rerandomise_fraction=1.0, weights="kaiming")
    model[0].requires_grad_(False)
    before = frozen_of(model)
    rerandomise_(model, 2, seed=0)
    assert torch.equal(model[0].frozen, before[0])
    assert not torch.equal(model[2].frozen, before[1])


@pytest.mark.parametrize("masks", [False, True])
def test_files_hold_the_weights(tmp_path, masks):
    method = methods.supermask(0.5, rerandomise_every=1)
    model = models.create("fc_300_100", method=method, seed=0, image_size=8)
    rerandomise_(model, 1, seed=0)
    input = torch.randn(2, 3, 8, 8)
    save(model, tmp_path / "file", masks=masks)
    other = models.create("fc_300_100", method=method, seed=5, image_size=8)
    load(other, tmp_path / "file")
    assert torch.equal(other(input), model(input))
    for one, two in zip(model.modules(), other.modules(), strict=True):
        if isinstance(one, SupermaskLinear):
            assert torch.equal(one.frozen, two.frozen)
    weights = sum(p.numel() for p in model.parameters())
    assert count_inference_bytes(model).stored >= 4 * weights
    plain = models.create("fc_300_100", method=methods.supermask(0.5), seed=0, image_size=8)
    with pytest.raises(ValueError, match="rerandomise_every is 1 in the file; the model has 0"):
        load(plain, tmp_path / "file")
    torch.testing.assert_close(merge_(copy.deepcopy(model))(input), model(input))


def test_weights_that_others_may_keep():
    first = SupermaskLinear(4, 4, rerandomise_every=1)
    shared = nn.Sequential(first, SupermaskLinear(4, 4, frozen=first.frozen))
    with pytest.raises(ValueError, match="expected 0 for layers that share a frozen weight"):
        rerandomise_(shared, 1, seed=0)
    first.hold_mask(first.pack_mask())
    with pytest.raises(ValueError, match="a layer uses a held mask"):
        rerandomise_(first, 1, seed=0)
    with pytest.raises(ValueError, match="model has layers with rerandomise_every"):
        Supermasks(network())
    with pytest.raises(ValueError, match="rerandomise_every is 2; expected 0 under fold"):
        models.create("resnet_8", method=methods.supermask(rerandomise_every=2), fold=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rerandomise_every": -1}, ValueError, "rerandomise_every is -1; expected at least 0"),
        ({"rerandomise_every": 1.5}, TypeError, "rerandomise_every is 1.5"),
        ({"rerandomise_fraction": 1.5}, ValueError, "rerandomise_fraction is 1.5; expected a fr"),
        (
            {"rerandomise_fraction": "1"},
            TypeError,
            "rerandomise_fraction is '1' .str.; expected a fr",
        ),
        (
            {"rerandomise_every": 1, "weights": "network"},
            ValueError,
            "rerandomise_every is 1; expected 0 under weights='network'",
        ),
    ],
)
def test_settings_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        methods.supermask(**options)
    with pytest.raises(error, match=message):
        SupermaskLinear(2, 2, **options)
    with pytest.raises(ValueError, match="expected 0 under weights='keep'"):
        methods.supermask(rerandomise_every=1, weights="keep")
    with pytest.raises(ValueError, match="step is 0; expected at least 1"):
        rerandomise_(network(), 0, seed=0)
