"""Fisher information of the slices of a network."""

from __future__ import annotations

import copy

import pytest
import torch
from acting_layers import Averaging, Merging
from torch import nn
from torch.nn import functional as F
from which_networks import CONVOLUTIONS, chosen, network

from maskedconv import convert_, fisher_information


def batches(count: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shape = (size, 3, 8, 8)
    return [
        (torch.randn(shape, generator=generator).double(), torch.arange(size) % 5)
        for _ in range(count)
    ]


@pytest.mark.parametrize("slice_dim", [0, 1])
def test_fisher_information_is_the_mean_squared_gradient(slice_dim: int) -> None:
    model, data = network(), batches(3, 1)
    found = fisher_information(model, data, F.cross_entropy, slice_dim=slice_dim).scores
    plain, sums = network().eval(), {}
    for input, target in data:
        plain.zero_grad()
        F.cross_entropy(plain(input), target).backward()
        for name in CONVOLUTIONS:
            grad = plain.get_submodule(name).weight.grad
            others = [dim for dim in range(4) if dim != slice_dim]
            sums[name] = sums.get(name, 0) + grad.square().sum(others) / len(data)
    assert found.keys() == sums.keys()
    for name, scores in found.items():
        torch.testing.assert_close(scores.double(), sums[name], rtol=1e-5, atol=1e-12)


def test_fisher_information_chooses_and_changes_nothing() -> None:
    model = network().requires_grad_(False)
    model[3].eval()
    before = copy.deepcopy(model.state_dict())
    fisher = fisher_information(model, batches(2, 4), F.cross_entropy)
    assert all(torch.equal(one, before[key]) for key, one in model.state_dict().items())
    assert [module.training for module in model] == [index != 3 for index in range(len(model))]
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    found = chosen(convert_(model.requires_grad_(True), learned=0.25, which=fisher, rest="freeze"))
    for name, indices in found.items():
        best = fisher.scores[name].argsort(descending=True)[: len(indices)]
        assert indices == tuple(sorted(best.tolist()))


@pytest.mark.parametrize("in_place", [False, True])
def test_fisher_information_leaves_layers_that_act(in_place: bool) -> None:
    averaging = Averaging(4, in_place=in_place, only_in_training=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), averaging, nn.Flatten(), Merging(4 * 36, 5)).double()
    mean = averaging.mean
    fisher_information(model, batches(2, 4), F.cross_entropy)
    assert averaging.mean is mean
    assert mean.eq(0).all()
    assert not model[3].merged


def test_fisher_information_of_other_slices_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).double()
    rows = fisher_information(model, batches(1, 2), F.cross_entropy, slice_dim=2)
    with pytest.raises(ValueError, match="slice_dim is 3, but which has the scores of slice_dim=2"):
        convert_(model, learned=1, slice_dim=3, which=rows)
    assert convert_(model, learned=1, slice_dim=2, which=rows)[0].slice_dim == 2


def test_fisher_information_of_one_part_of_a_network() -> None:
    fisher = fisher_information(network(), batches(1, 2), F.cross_entropy)
    model = convert_(network(), learned=0.25, include="4", which=fisher, rest="freeze")
    assert model[4].num_learned == 3
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1))
    with pytest.raises(ValueError, match="there are no scores of it; expected one of 0, 3, 4"):
        convert_(other, learned=0.25, which=fisher)


def test_fisher_information_refuses() -> None:
    model = network()
    with pytest.raises(ValueError, match="batches is empty"):
        fisher_information(model, [], F.cross_entropy)
    with pytest.raises(ValueError, match=r"loss returned \[4, 5\]; expected a scalar"):
        fisher_information(model, batches(1, 4), lambda output, _: output)
    with pytest.raises(ValueError, match=r"has no nn\.Conv2d"):
        fisher_information(nn.Linear(1, 1), [], F.cross_entropy)
    with pytest.raises(ValueError, match=r"gradients of .* are NaN"):
        fisher_information(model, batches(1, 4), lambda output, _: output.sum() * float("nan"))
    assert all(p.requires_grad for p in model.parameters())
    assert model.training
