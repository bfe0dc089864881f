"""Layers that share one frozen weight."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from maskedconv import (
    convert_,
    count_parameters,
    load,
    methods,
    models,
    save,
    select_learned_,
)
from maskedconv.counting import SEED_BYTES, count_inference_bytes
from maskedconv.nn import SupermaskLinear
from maskedconv.nn.folding import fold_
from maskedconv.nn.scored import ScoredLayer

MASKS = methods.supermask(k=0.5, weights="network", scale=False)
NAMES = ("transformer_3_32", "resnet_20")


def made(name="transformer_3_32", fold=True, seed=0):
    return models.create(name, num_classes=20, method=MASKS, fold=fold, seed=seed)


def scored(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, ScoredLayer)}


def sharing(model):
    """The names of the layers that hold each frozen tensor."""
    groups = {}
    for name, layer in scored(model).items():
        groups.setdefault(id(layer.frozen), []).append(name)
    return sorted(groups.values())


def test_one_weight_per_role():
    model = made()
    shared = {tuple(group) for group in sharing(model)}
    attention = [f"attention.{p}" for p in ("q", "k", "v", "out")]
    ours = [*attention, "feed_forward.fc1", "feed_forward.fc2"]
    theirs = [*ours, *(f"cross_{name}" for name in attention)]
    assert shared == {
        ("encoder_embedding",),
        ("decoder_embedding",),
        *(tuple(f"encoder.{i}.{role}" for i in range(3)) for role in ours),
        *(tuple(f"decoder.{i}.{role}" for i in range(3)) for role in theirs),
    }
    scores = [layer.scores for layer in scored(model).values()]
    assert len({id(score) for score in scores}) == len(scores)
    assert not torch.equal(model.encoder[0].attention.q.scores, model.encoder[1].attention.q.scores)


def test_blocks_of_a_stage():
    shared = {tuple(group) for group in sharing(made("resnet_20"))}
    for stage in ("block1", "block2", "block3"):
        assert tuple(f"{stage}.{i}.conv2" for i in range(3)) in shared
        first = range(3) if stage == "block1" else range(1, 3)
        assert tuple(f"{stage}.{i}.conv1" for i in first) in shared
    assert ("conv1",) in shared
    assert ("block2.0.conv1",) in shared


def copied_by_pickle(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loaded_state(model):
    other = made_like(model)
    other.load_state_dict(model.state_dict())
    return other


def made_like(model):
    return made("transformer_3_32" if hasattr(model, "encoder") else "resnet_20", seed=1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "change",
    [copy.deepcopy, copied_by_pickle, loaded_state, lambda m: m.to(torch.float64),
     lambda m: m.half(), lambda m: m.to(memory_format=torch.channels_last)],
    ids=["deepcopy", "pickle", "state_dict", "to", "half", "channels_last"],
)  # fmt: skip
def test_sharing_survives(name, change):
    model = made(name)
    frozen = {key: layer.frozen.double() for key, layer in scored(model).items()}
    expected = sharing(model)
    changed = change(model)
    assert sharing(changed) == expected
    for key, layer in scored(changed).items():
        torch.testing.assert_close(layer.frozen.double(), frozen[key], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_checkpoint(name, frozen, tmp_path):
    """Without the frozen weights, they are drawn again, once for all layers that share them."""
    model, path = made(name), tmp_path / "model.safetensors"
    with torch.no_grad():
        for layer in scored(model).values():
            layer.scores.normal_()
    save(model, path, frozen=frozen)
    other = load(made(name, seed=7), path)
    assert sharing(other) == sharing(model)
    for (key, value), again in zip(
        model.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(value, again), key


def test_a_checkpoint_of_other_weights_is_refused(tmp_path):
    """A file in which layers do not share has different values for them."""
    path = tmp_path / "model.safetensors"
    save(made(fold=False), path, frozen=True)
    with pytest.raises(ValueError, match=r"share one tensor"):
        load(made(fold=True), path)


def step_of(model, name):
    if name.startswith("transformer"):
        batch = torch.randint(3, 20, (4, 2, 5), generator=torch.Generator().manual_seed(0))
        return model(batch).square().mean()
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return model(images).square().mean()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["transformer_2_16", "resnet_8"])
def test_frozen_weights_do_not_move(name, optimizer):
    """A hundred steps with momentum and weight decay."""
    model = made(name)
    frozen = {key: layer.frozen.clone() for key, layer in scored(model).items()}
    scores = {key: layer.scores.detach().clone() for key, layer in scored(model).items()}
    make = {"sgd": lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.1),
            "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)}[optimizer]  # fmt: skip
    steps = make(model.parameters())
    for _ in range(100):
        steps.zero_grad()
        step_of(model, name).backward()
        steps.step()
    for key, layer in scored(model).items():
        assert torch.equal(layer.frozen, frozen[key]), key
        assert not torch.equal(layer.scores, scores[key]), key


def test_bytes():
    """Each mask takes a bit for a weight; a shared weight is held once."""
    model, own = made(), made(fold=False)
    weights = 2 * 20 * 32 + 3 * (3 * 4 * 32 * 32 + 2 * 2 * 4 * 32 * 32)
    once = 2 * 20 * 32 + (3 * 4 * 32 * 32 + 2 * 2 * 4 * 32 * 32)
    assert weights == count_parameters(model).learned == count_parameters(model).total
    for network, held in ((model, once), (own, weights)):
        found = count_inference_bytes(network)
        assert found == (weights // 8 + SEED_BYTES, weights // 8 + 4 * held)
    trained = models.create("transformer_3_32", num_classes=20)
    assert count_inference_bytes(trained) == (4 * weights, 4 * weights)


def test_bytes_of_other_methods():
    """Learned filters take four bytes each, zero ones nothing, and statistics count."""
    layer = nn.BatchNorm2d(3)
    assert count_inference_bytes(layer) == (4 * 12 + 8, 4 * 12 + 8)
    random = models.create("conv2", learned=0.5, width=0.125, image_size=8, seed=0)
    learned = 4 * count_parameters(random).learned
    total = 4 * count_parameters(random).total
    assert count_inference_bytes(random) == (learned + SEED_BYTES, total)
    zeroed = models.create("conv2", learned=0.5, width=0.125, frozen="zero", image_size=8, seed=0)
    assert count_inference_bytes(zeroed) == (learned, learned)
    odd = SupermaskLinear(3, 3)
    assert count_inference_bytes(odd) == (2 + SEED_BYTES, 2 + 36)


def test_layers_of_another_shape_are_left():
    blocks = nn.ModuleList(nn.Sequential(SupermaskLinear(4, size)) for size in (4, 5, 4))
    fold_(blocks)
    assert blocks[0][0].frozen is blocks[2][0].frozen
    assert blocks[1][0].frozen.shape == (5, 4)
    with pytest.raises(ValueError, match="fold is True"):
        fold_([nn.Linear(2, 2)])


def test_layers_with_seeds_of_their_own(tmp_path):
    """The file says of each that the first one's seed gives its weight."""

    def folded(seed):
        layers = (SupermaskLinear(4, 4, seed=seed + index) for index in range(2))
        blocks = nn.ModuleList(nn.Sequential(layer) for layer in layers)
        fold_(blocks)
        return blocks

    model = folded(0)
    assert not torch.equal(model[0][0].scores, model[1][0].scores)
    save(model, tmp_path / "file")
    other = load(folded(5), tmp_path / "file")
    for ours, expected in zip(other, model, strict=True):
        assert torch.equal(ours[0].frozen, expected[0].frozen)
        assert torch.equal(ours[0].scores, expected[0].scores)
    assert other[0][0].frozen is other[1][0].frozen


@pytest.mark.parametrize("seed", [None, 0])
def test_folded_layers_have_not_changed_since(seed, tmp_path, recwarn):
    """The values that they give up are not those that a file is missing."""
    layers = [nn.Sequential(nn.Linear(4, 4, bias=False)) for _ in range(2)]
    model = convert_(nn.ModuleList(layers), method=methods.supermask(), seed=seed)
    fold_(model)
    save(model, tmp_path / "file")
    warned = [str(one.message) for one in recwarn]
    assert all("were drawn at random" in message for message in warned)
    assert len(warned) == (seed is None)


def test_bytes_of_values_that_are_not_learned():
    """Inference needs them as well."""
    model = models.create("conv2", learned=0.5, width=0.125, image_size=8, seed=0)
    expected = count_inference_bytes(model)
    for frozen in (select_learned_(model, "fc"), model.requires_grad_(False)):
        assert count_inference_bytes(frozen) == expected


@pytest.mark.parametrize("seeds", [(1, 2, 3), (None, None, None), (None, 2, 3)])
def test_a_reset_leaves_layers_folded(seeds):
    """Each has scores of its own, and the weight is the one that its seed gives, if any."""
    blocks = [nn.Sequential(SupermaskLinear(8, 8, weights="kaiming", seed=s)) for s in seeds]
    starts = [block[0].scores.detach().clone() for block in blocks]
    fold_(blocks)
    shared = blocks[0][0].frozen
    before = shared.clone()
    for block in blocks[1:]:
        block[0].reset_parameters()
    assert torch.equal(shared, before)
    blocks[0][0].reset_parameters()
    assert torch.equal(shared, before) == (seeds[0] is not None)
    assert all(block[0].frozen is shared and block[0].seed == seeds[0] for block in blocks)
    scores = [block[0].scores.detach() for block in blocks]
    assert not any(torch.equal(scores[i], scores[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    again = [torch.equal(one, start) for one, start in zip(scores, starts, strict=True)]
    assert again == [seed is not None for seed in seeds]


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("start", ["cpu", "meta"])
def test_folded_layers_from_the_meta_device(start, seed, tmp_path, recwarn):
    with torch.device(start):
        model = made("resnet_14", seed=seed)
    groups = sorted(map(sorted, sharing(model)))
    assert len(groups) < len(scored(model))
    for move in (lambda: model.to("meta"), lambda: model.to_empty(device="cpu")):
        move()
        assert sorted(map(sorted, sharing(model))) == groups
    layers = scored(model).values()
    with torch.no_grad():
        for layer in layers:
            layer.frozen.fill_(torch.nan)  # what uninitialised memory may be
    for layer in layers:
        layer.reset_parameters()
    assert all(layer.frozen.isfinite().all() for layer in layers)
    save(model, tmp_path / "file")
    assert not any("changed since" in str(one.message) for one in recwarn)


def test_a_given_weight_without_values_is_drawn():
    layer = SupermaskLinear(4, 4, frozen=torch.ones(4, 4)).to("meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.frozen.fill_(torch.nan)
    layer.reset_parameters()
    assert layer.frozen.isfinite().all()


@pytest.mark.parametrize("weights", ["network", "uniform"])
def test_scores_are_not_the_weight_of_their_seed(weights):
    """Their first mask would be that of the largest weights."""
    one = SupermaskLinear(8, 8, weights=weights, scale=False, seed=0)
    other = SupermaskLinear(8, 8, frozen=one.frozen, seed=0)
    assert not torch.equal(other.scores, one.frozen)
    assert torch.equal(other.scores, one.scores)
