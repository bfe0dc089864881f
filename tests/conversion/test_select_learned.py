"""select_learned_ takes patterns of names on any network."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from maskedconv import convert_, count_parameters, load, save, select_learned_


@pytest.fixture(scope="module")
def resnet():
    return torchvision.models.resnet18(num_classes=3)


def learned(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("part", "starts"),
    [
        ("layer4.*", ("layer4.",)),
        ("layer4", ("layer4.",)),
        (("layer4.1", "fc"), ("layer4.1.", "fc.")),
        ("*.downsample.0", tuple(f"layer{i}.0.downsample.0." for i in (2, 3, 4))),
        ("fc.bias", ("fc.bias",)),
    ],
)
def test_names_and_patterns(resnet, part, starts):
    select_learned_(resnet, part, bn_learned=False)
    norms = {name for name, one in resnet.named_modules() if isinstance(one, nn.BatchNorm2d)}
    expected = {
        name
        for name, _ in resnet.named_parameters()
        if name.startswith(starts) and name.rpartition(".")[0] not in norms
    }
    assert learned(resnet) == expected
    select_learned_(resnet, part)
    both = {f"{norm}.{name}" for norm in norms for name in ("weight", "bias")}
    assert learned(resnet) == expected | both


def test_what_matches_nothing_is_refused(resnet):
    select_learned_(resnet, "fc")
    before = learned(resnet)
    with pytest.raises(
        ValueError, match=r"part is 'layer5'; expected one of all, bn, conv1, fc for"
    ):
        select_learned_(resnet, ("layer4", "layer5"))
    with pytest.raises(ValueError, match="part is 'relu'"):
        select_learned_(resnet, "relu")
    assert learned(resnet) == before
    with pytest.raises(ValueError, match="expected one of all, bn, 0, 1, 2, 3 and 1 more for Seq"):
        select_learned_(nn.Sequential(*(nn.Linear(1, 1) for _ in range(5))), "5")


def test_frozen_filters_stay_frozen():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten())
    convert_(model, learned=0.5, seed=0)
    assert count_parameters(select_learned_(model, "1")).learned == 2 * 5
    assert learned(model) == {"1.learned", "1.bias_learned"}


def test_a_count_prints_a_percentage():
    model = convert_(nn.Sequential(nn.Conv2d(3, 400, 1)), learned=0.25)
    assert str(count_parameters(model)) == "400 of 1,600 parameters learned (25.00%)"


def moved_by_an_old_optimizer(model, freeze):
    """Names of the values that SGD moves with gradients from before ``freeze``."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    freeze(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def test_an_optimizer_moves_nothing_that_is_frozen(tmp_path):
    def network():
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(2, 2))

    moved = moved_by_an_old_optimizer(network(), lambda model: select_learned_(model, "2"))
    assert moved == {"1.weight", "1.bias", "2.weight", "2.bias"}
    chosen = convert_(network(), learned=0.5, rest="freeze")
    save(chosen, tmp_path / "file", frozen=True)
    moved = moved_by_an_old_optimizer(network(), lambda model: load(model, tmp_path / "file"))
    assert moved <= {"0.learned", "0.bias_learned", "1.weight", "1.bias"}


def test_bn_of_a_model_without_batch_norm():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8))
    with pytest.raises(ValueError, match="part is 'bn', but Sequential has no BatchNorm; name its"):
        select_learned_(model, "bn")
    assert all(parameter.requires_grad for parameter in model.parameters())
