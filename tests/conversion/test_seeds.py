"""Neighbouring seeds give unrelated values."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from maskedconv import Ensemble, MaskedConv2d, convert_, models
from maskedconv.nn import SupermaskConv2d
from maskedconv.seeds import Purpose, mixed_seed, seed_of_32_bits


def network():
    return nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(4)))


def test_mixed_seeds():
    seeds = {
        mixed_seed(seed, index, purpose)
        for seed in range(-20, 20)
        for index in range(5)
        for purpose in Purpose
    }
    assert len(seeds) == 200 * len(Purpose)
    assert not seeds & set(range(20))
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_layers_of_neighbouring_seeds():
    """Layers of one shape: a seed a layer of ``seed + index`` would give 3 of 4 the same values."""
    models = [convert_(network(), learned=0.25, frozen="random", seed=seed) for seed in (0, 1)]
    frozen = [layer.frozen for model in models for layer in model]
    for one, other in itertools.combinations(frozen, 2):
        assert not torch.equal(one, other)


def test_members_of_neighbouring_seeds():
    model = convert_(network(), learned=0.25)
    ensembles = [Ensemble(model, 3, seed=seed) for seed in (0, 1)]
    learned = [one[0].learned for ensemble in ensembles for one in ensemble.members]
    for one, other in itertools.combinations(learned, 2):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("frozen", ["keep", "zero"])
def test_a_conversion_without_new_values_draws_none(frozen):
    model, before = network(), torch.get_rng_state()
    weight = model[0].weight.detach().clone()
    convert_(model, learned=0.25, frozen=frozen)
    assert torch.equal(torch.get_rng_state(), before)
    weight[2:] *= frozen == "keep"
    assert torch.equal(model[0].weight, weight)


def test_seeds_of_more_bits_than_the_generator_reads():
    """PyTorch's generator of the CPU gives 0 and 2**32 the same numbers."""
    seeds = [0, 7, 2**32 - 1, 2**32, 7 + 2**32, 2**63, -1, -(2**32)]
    assert [seed_of_32_bits(seed) for seed in seeds[:3]] == seeds[:3]
    assert len({seed_of_32_bits(seed) for seed in seeds}) == len(seeds)
    makers = {
        "layer": lambda seed: MaskedConv2d(2, 2, 3, learned=1, seed=seed).frozen,
        "network": lambda seed: models.create("resnet_8", learned=0.5, seed=seed).conv1.frozen,
        "scores": lambda seed: SupermaskConv2d(2, 2, 3, seed=seed).scores,
    }
    for make in makers.values():
        assert not torch.equal(make(5), make(5 + 2**32))


@pytest.mark.parametrize("seed", ["1", 1.0, True])
def test_what_is_no_seed(seed):
    model = network()
    message = f"seed is {seed!r} .*expected an int or None"
    with pytest.raises(TypeError, match=message):
        convert_(model, learned=0.25, seed=seed)
    assert type(model[0]) is nn.Conv2d
    with pytest.raises(TypeError, match=message):
        Ensemble(convert_(model, learned=0.25), 2, seed=seed)
