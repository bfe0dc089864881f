"""Masks of one threshold for a network are those of its present scores, whoever reads them."""

from __future__ import annotations

import copy
import io
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

from maskedconv import Ensemble, convert_, count_kept, load, merge_, methods, save
from maskedconv.nn import SupermaskConv2d, SupermaskLinear
from maskedconv.nn.global_threshold import share_threshold, update_thresholds
from maskedconv.nn.rerandomise import rerandomise_
from maskedconv.runs.masks import describe_masks
from maskedconv.supermasks import Supermasks

K = 0.3


def plain():
    return nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.Flatten(), nn.Linear(12, 2, bias=False))


def network(seed=0):
    return convert_(plain(), method=methods.supermask(K, threshold="global"), seed=seed)


def images():
    return torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def scored(model):
    return [m for m in model.modules() if isinstance(m, SupermaskConv2d | SupermaskLinear)]


def expected_masks(model):
    """Masks by a stable sort of the scores of all layers."""
    scores = [layer.scores.detach() for layer in scored(model)]
    joined = torch.cat([one.flatten() for one in scores])
    mask = torch.zeros(joined.numel(), dtype=torch.bool)
    order = joined.abs().sort(stable=True).indices
    mask[order[int((1 - K) * joined.numel()) :]] = True
    parts = mask.split([one.numel() for one in scores])
    return [part.view(one.shape) for part, one in zip(parts, scores, strict=True)]


def fresh(model):
    return model


def moved_by_vector(model):
    values = nn.utils.parameters_to_vector(model.parameters()).roll(7)
    nn.utils.vector_to_parameters(values, model.parameters())
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # merge_ leaves what shares memory alone
    return model


def changed_through_data(model):
    for layer in scored(model):
        layer.scores.data.copy_(layer.scores.data.roll(3))
    return model


def averaged(model):
    average = AveragedModel(model, avg_fn=lambda old, new, _: old - 0.3 * new.roll(1))
    average.update_parameters(model)
    average.update_parameters(model)
    return average


def stepped(model):
    model(images()).square().sum().backward()
    torch.optim.SGD(model.parameters(), 3.0).step()
    return model


def assigned(model):
    state = {key: value.flip(0) for key, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return model


def called_with_others(model):
    others = {key: value.detach().flip(0) for key, value in model.named_parameters()}
    functional_call(model, others, (images(),))
    return model


def differentiated(model):
    values = {key: value.detach() for key, value in model.named_parameters()}
    grad(lambda p: functional_call(model, p, (images(),)).sum())(values)
    vmap(model)(images()[None])
    return model


CHANGES = {
    f.__name__: f
    for f in (
        fresh, moved_by_vector, changed_through_data, averaged, stepped, assigned,
        called_with_others, differentiated, copy.deepcopy,
    )
}  # fmt: skip


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_every_reader_has_the_masks_of_the_present_scores(change, called, tmp_path):
    def made():
        model = network()
        if called:
            model(images())
        return CHANGES[change](model)

    expected = expected_masks(made())
    kept = sum(int(mask.sum()) for mask in expected)
    assert count_kept(made()).kept == kept
    assert [row["kept"] for row in describe_masks(made())] == [int(m.sum()) for m in expected]
    model = made()
    frozen = [layer.frozen.clone() for layer in scored(model)]
    merge_(model)
    merged = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for weight, mask, values in zip(merged, expected, frozen, strict=True):
        assert torch.equal(weight, torch.where(mask, values, 0))
    model = made()
    save(model, tmp_path / "file", masks=True)
    for layer, mask in zip(scored(load(model, tmp_path / "file")), expected, strict=True):
        assert torch.equal(layer.scores != 0, mask)


@pytest.mark.parametrize("change", ["assigned", "averaged", "called_with_others", "stepped"])
def test_a_layer_refuses_a_threshold_of_other_scores(change):
    model = network()
    model(images())
    model = CHANGES[change](model)
    with pytest.raises(RuntimeError, match="threshold of the network is not known"):
        _ = scored(model)[0].mask
    assert "kept=?/54" in repr(model)


def test_another_type():
    model = network()
    model(images())
    model.half()
    frozen = [layer.frozen.clone() for layer in scored(model)]
    expected = expected_masks(model)
    merge_(model)
    for index, mask, values in zip((0, 2), expected, frozen, strict=True):
        assert torch.equal(model[index].weight, torch.where(mask, values, 0))


def test_under_transforms():
    """Nothing of a transform is left in the layers: not their threshold, nor one in copies."""
    model = network()
    expected = model(images())
    for transformed in (grad(lambda x: model(x).sum()), vmap(lambda x: model(x[None]))):
        transformed(images())
        with pytest.raises(RuntimeError, match="threshold of the network is not known"):
            _ = model[0].mask
        other = copy.deepcopy(model)
        torch.save(model, io.BytesIO())
        assert torch.equal(other(images()), expected)
        assert torch.equal(model(images()), expected)


def test_a_mode_within_the_network():
    model, other = network(), network()
    contexts = partial(create_selective_checkpoint_contexts, [torch.ops.aten.mm.default])
    forward = model[2].forward
    model[2].forward = lambda x: checkpoint(forward, x, use_reentrant=False, context_fn=contexts)
    for one in (model, other):
        one(images()).square().sum().backward()
    assert torch.equal(model[2].scores.grad, other[2].scores.grad)


def test_a_mode_that_has_ended():
    model = network()
    with FlopCounterMode(display=False):
        model(images())
    assert torch.equal(model[0].mask, expected_masks(model)[0])


def test_made_in_inference_mode():
    with torch.inference_mode():
        model = network()
        assert torch.equal(model(images()), network()(images()))
        assert [layer.mask for layer in scored(model)]
        assert count_kept(model).kept == count_kept(network()).kept


def two_networks():
    """Two networks in one model; all of the largest scores are the second one's."""
    model = nn.ModuleDict({"first": network(0), "second": network(1)})
    for layer in scored(model["first"]):
        layer.scores.data.mul_(0.01)
    return model


def test_networks_in_a_model_have_a_threshold_each(tmp_path):
    model = two_networks()
    masks = {key: expected_masks(one) for key, one in model.items()}
    outputs = {key: one(images()) for key, one in model.items()}
    kept = sum(int(mask.sum()) for one in masks.values() for mask in one)

    def check(other):
        for key, one in other.items():
            assert torch.equal(one(images()), outputs[key])
        update_thresholds(other)
        for key, one in other.items():
            for layer, mask in zip(scored(one), masks[key], strict=True):
                assert torch.equal(layer.mask, mask)

    assert count_kept(model).kept == kept
    check(model)
    tasks = Supermasks(model)
    tasks.add("one")
    tasks.switch("one")
    check(model)
    tasks.release()
    save(model, tmp_path / "file", masks=True)
    check(load(two_networks(), tmp_path / "file"))
    merge_(model)
    for key, one in model.items():
        torch.testing.assert_close(one(images()), outputs[key])


def test_a_network_within_another():
    """It keeps its own threshold when the other one is called, and the others have another."""
    options = {"k": K, "threshold": "global"}
    inner = network()
    for layer in scored(inner):
        layer.scores.data.mul_(100)
    model = nn.Sequential(inner, SupermaskLinear(2, 8, **options), SupermaskLinear(8, 2, **options))
    share_threshold(model)
    model(images())
    expected = [*expected_masks(inner), *expected_masks(model[1:])]
    for layer, mask in zip(scored(model), expected, strict=True):
        assert torch.equal(layer.mask, mask)


def test_weights_are_drawn_anew_by_the_masks_of_each_network():
    method = methods.supermask(
        K, "kaiming", threshold="global", rerandomise_every=1, rerandomise_fraction=1.0
    )
    model = nn.ModuleList(convert_(plain(), method=method, seed=seed) for seed in range(2))
    model[0][0].scores.data.mul_(0.01)
    before = [layer.frozen.clone() for layer in scored(model)]
    rerandomise_(model, 1, seed=0)
    expected = [mask for one in model for mask in expected_masks(one)]
    for layer, frozen, mask in zip(scored(model), before, expected, strict=True):
        assert torch.equal(layer.frozen == frozen, mask)


def test_a_part_of_a_network_has_no_threshold_of_its_own():
    model = network()
    with pytest.raises(RuntimeError, match="threshold of the network is not known"):
        count_kept(model[:1])
    model(images())
    assert count_kept(model[:1]).kept == int(model[0].mask.sum())


def test_members_of_an_ensemble(tmp_path):
    ensemble = Ensemble(network(), 2, seed=0)
    ensemble.save(tmp_path, masks=True)
    other = Ensemble(network(), 2, seed=5).load(tmp_path)
    assert torch.equal(other(images()), ensemble(images()))


def test_merging_leaves_no_hook():
    model = network()
    model[2].scores.register_hook(lambda gradient: gradient)
    other = network()
    output = merge_(other)(images())
    assert not other._forward_pre_hooks
    torch.testing.assert_close(network()(images()), output)
    # A layer that stays would have another threshold alone.
    with pytest.raises(ValueError, match="0: its network has one threshold, and 2 is left alone"):
        merge_(model)
    assert torch.equal(model(images()), network()(images()))


def test_loading_into_a_compiled_network(tmp_path):
    save(network(), tmp_path / "file", frozen=True)
    model = plain()
    compiled = load(torch.compile(model, backend="eager"), tmp_path / "file")
    assert not compiled._forward_pre_hooks
    expected = network()(images())
    assert torch.equal(model(images()), expected)
    assert torch.equal(compiled(images()), expected)
