"""Supermasks in the tools for whole models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from maskedconv import (
    convert_,
    count_kept,
    count_parameters,
    load,
    merge_,
    methods,
    models,
    save,
)
from maskedconv.checkpoint import load_plain
from maskedconv.nn import BipropConv2d, SupermaskConv2d, SupermaskEmbedding, SupermaskLinear
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.supermasks import Supermasks

METHODS = {"supermask": methods.supermask, "biprop": methods.biprop}


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=2, padding_mode="circular", padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(64, 2, bias=False),
    )


@pytest.mark.parametrize("method", METHODS)
def test_conversion_and_merging(method):
    model = convert_(network(), method=METHODS[method](0.3), seed=0)
    again = convert_(network(), method=METHODS[method](0.3), seed=0)
    layers = [model[index] for index in (0, 2, 4)]
    assert {layer.method for layer in layers} == {method}
    weights = sum(layer.weight.numel() for layer in layers)
    counted = count_parameters(model)
    assert counted.learned == counted.total == weights
    kept = count_kept(model)
    assert kept.kept == sum(int((layer.weight != 0).sum()) for layer in layers)
    input = torch.randn(2, 3, 8, 8)
    output = model(input)
    assert torch.equal(again(input), output)
    merge_(model)
    assert [type(model[index]) for index in (0, 2, 4)] == [nn.Conv2d, nn.Conv2d, nn.Linear]
    torch.testing.assert_close(model(input), output)
    assert all(p.requires_grad for p in model.parameters())


def test_weights_are_kept():
    model = network()
    before = copy.deepcopy(model)
    convert_(model, method=methods.supermask(1.0, weights="keep"), include=("0", "4"))
    assert torch.equal(model[0].frozen, before[0].weight)
    assert type(model[2]) is nn.Conv2d
    torch.testing.assert_close(model(x := torch.randn(1, 3, 8, 8)), before(x))


def test_a_layer_with_a_bias_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, bias=False), nn.Linear(2, 2))
    with pytest.warns(UserWarning, match=r"left 2 of 3 layers alone: 0, 2: it has a bias, which"):
        convert_(model, method=methods.supermask())
    assert type(model[0]) is nn.Conv2d
    assert type(model[1]) is SupermaskConv2d
    with pytest.raises(ValueError, match="include has '2', but convert_ leaves alone 2: it has a"):
        convert_(model, method=methods.supermask(), include="2")


def test_settings_of_the_plain_layer_are_kept():
    model = network().double().eval().to(memory_format=torch.channels_last)
    model[0].weight.requires_grad_(False)
    convert_(model, method=methods.supermask())
    assert model[0].frozen.dtype is torch.float64
    assert model[0].scores.is_contiguous(memory_format=torch.channels_last)
    assert not model[0].scores.requires_grad
    assert model[2].scores.requires_grad
    assert not model[0].training


@pytest.mark.parametrize("name", ["wrn_10_1", "densenet_bc_16_12", "vgg19_bn", "alexnet"])
def test_every_layer_of_a_network_is_masked(name):
    model = models.create(name, method=methods.supermask(0.5), seed=0)
    kinds = {type(m) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert not kinds
    assert all(key.endswith("scores") for key, _ in model.named_parameters())
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_norms_may_be_learned():
    model = models.create("vgg_small", method=methods.biprop(norm_learned=True), width=0.05)
    learned = {key.rpartition(".")[2] for key, _ in model.named_parameters()}
    assert learned == {"scores", "weight", "bias"}
    assert type(model.fc) is not SupermaskLinear
    assert isinstance(model.features[0], BipropConv2d)


def test_binary_activations():
    model = models.create("vgg_small", width=0.05, activation="sign", image_size=8)
    seen = set()
    model.features[6].register_forward_hook(lambda *args: seen.update(args[2].unique().tolist()))
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    assert seen <= {-1.0, 0.0, 1.0}
    assert model.features[0].learned.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="activation is 'tanh'; expected one of relu, sign"):
        models.create("vgg_small", activation="tanh")


def test_a_global_threshold_for_a_converted_model():
    model = convert_(network(), method=methods.supermask(0.3, threshold="global"))
    output = model(x := torch.randn(2, 3, 8, 8))
    total = sum(p.numel() for p in model.parameters())
    assert count_kept(model).kept == total - int(0.7 * total)
    torch.testing.assert_close(merge_(model)(x), output)


def test_a_seed_draws_the_scores_of_weights_that_are_kept():
    before = network()
    method = methods.supermask(0.3, weights="keep")
    state = torch.get_rng_state()
    models = [convert_(copy.deepcopy(before), method=method, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    for index in (0, 2, 4):
        first, second, other = (model[index] for model in models)
        assert torch.equal(first.frozen, before[index].weight)
        assert torch.equal(first.scores, second.scores)
        assert not torch.equal(first.scores, other.scores)
        assert first.seed is None  # it does not give the frozen weight


@pytest.mark.parametrize("weight", [nn.Parameter(torch.ones(4, 4)), torch.ones(4, 4) * 2])
def test_a_parameter_as_frozen_weight_is_not_learned(weight):
    layers = SupermaskLinear(4, 4, frozen=weight), SupermaskEmbedding(4, 4, frozen=weight)
    for layer in (*layers, SupermaskConv2d(4, 4, 1, frozen=weight.view(4, 4, 1, 1))):
        changed = layer.double()
        assert [name for name, _ in changed.named_parameters()] == ["scores"]
        assert changed.frozen.dtype is torch.float64
        changed.weight.sum().backward()


DTYPES = sorted((torch.bfloat16, torch.float16, torch.float32, torch.float64), key=str)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_any_type_in_plain_and_merged_models(method, dtype, tmp_path):
    model = convert_(network().to(dtype), method=METHODS[method](0.3), seed=0)
    model.to(memory_format=torch.channels_last)
    save(model, tmp_path / "file")
    for other in (network().to(dtype), merge_(copy.deepcopy(model))):
        other.to(memory_format=torch.channels_last)
        load(other, tmp_path / "file")
        for ours, expected in zip(other.parameters(), model.parameters(), strict=True):
            assert torch.equal(ours, expected)
            assert ours.stride() == expected.stride()
        for index in (0, 2, 4):
            assert torch.equal(other[index].frozen, model[index].frozen)
            assert other[index].frozen.stride() == model[index].frozen.stride()
            assert torch.equal(other[index].weight, model[index].weight)


def test_a_layer_takes_the_type_of_its_frozen_weight():
    frozen = torch.ones(4, 4, dtype=torch.float64)
    assert SupermaskLinear(4, 4, frozen=frozen).scores.dtype is torch.float64
    assert SupermaskConv2d(4, 4, 1, frozen=frozen.view(4, 4, 1, 1)).dtype is torch.float64
    with pytest.raises(ValueError, match=r"\[4, 4\] of torch.float64; expected \[4, 4\] of"):
        SupermaskEmbedding(4, 4, frozen=frozen, dtype=torch.float32)


def transformer(method=None, **options):
    return models.create("transformer_1_16", num_classes=20, method=method, seed=0, **options)


def pairs():
    return torch.randint(3, 20, (4, 2, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("threshold", ["global", "layer"])
@pytest.mark.parametrize("method", METHODS)
def test_embeddings_in_the_tools_for_whole_models(method, threshold, tmp_path):
    model = transformer(METHODS[method](0.3, threshold=threshold))
    output = model(pairs())
    save(model, tmp_path / "file", frozen=True)
    loaded = load(transformer(), tmp_path / "file")
    assert type(loaded.encoder_embedding) is type(model.encoder_embedding)
    assert torch.equal(loaded(pairs()), output)
    tasks = Supermasks(model)
    tasks.add("one")
    assert tasks.infer(pairs()) == "one"
    tasks.release()
    merge_(model)
    assert type(model.encoder_embedding) is type(model.decoder_embedding) is nn.Embedding
    assert not any(isinstance(m, PartlyLearned) for m in model.modules())
    torch.testing.assert_close(model(pairs()), output)
    if threshold == "layer":
        model.load_state_dict(load_plain(tmp_path / "file"))
        torch.testing.assert_close(model(pairs()), output)


OPTIONS = {
    "padding_idx": 0, "max_norm": 1.0, "scale_grad_by_freq": True, "sparse": True
}  # fmt: skip


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_an_embedding_of_another_kind_is_refused(option, tmp_path):
    save(nn.Sequential(SupermaskEmbedding(5, 4)), tmp_path / "file", frozen=True)
    plain = nn.Sequential(nn.Embedding(5, 4, **{option: OPTIONS[option]}))
    with pytest.raises(ValueError, match=f"0 cannot be converted: its {option} is"):
        load(plain, tmp_path / "file")


def test_a_layer_of_no_method():
    class Other(PartlyLearned):
        method = "other"

    model = nn.Sequential(Other(), nn.ReLU())
    with pytest.raises(ValueError, match="0: no method has layers of its type, Other"):
        merge_(model)
