"""State of a model between passes: buffers that they change, modes, and gradients' rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from acting_layers import Averaging, Merging
from torch import nn

from maskedconv import fuse_
from maskedconv.fusion.trial import Trial, difference, try_model


def network(*inside: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), *inside, nn.ReLU()),
        *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)),
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("in_place", [False, True])
def test_two_forward_passes_before_the_backward_pass(in_place):
    plain, (first, second) = network(Averaging(8, in_place=in_place)), torch.randn(2, 2, 3, 12, 12)
    fused = copy.deepcopy(plain)
    report = fuse_(fused, first)
    assert report.kept_after < report.kept_before
    for model in (plain, fused):
        (model(first).square().sum() + model(second).square().sum()).backward()
    for one, other in zip(plain.parameters(), fused.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("in_place", [False, True])
def test_buffers_that_a_pass_changes_are_restored(in_place):
    model = network(Averaging(8, in_place=in_place))
    mean = model[2].mean
    fuse_(model, torch.randn(2, 3, 12, 12))
    assert model[2].mean is mean
    assert mean.eq(0).all()


def test_buffers_that_a_pass_adds_stay():
    class Remembering(nn.Module):
        has_mask = False

        def forward(self, input):
            if not self.has_mask:
                self.register_buffer("mask", torch.ones(8, 1, 1))
                self.has_mask = True
            return input * self.mask

    model, x = network(Remembering()), torch.randn(2, 3, 12, 12)
    fuse_(model, x)
    model(x)
    assert "2.mask" in dict(model.named_buffers())


@pytest.mark.parametrize("training", [False, True])
def test_layers_that_act_when_their_mode_changes(training):
    model = nn.Sequential(network(), nn.Flatten(), nn.Sequential(Merging(4 * 36, 2)))
    model.train(training)
    model[0][1].train(not training)
    fuse_(model, torch.randn(2, 3, 12, 12))
    assert model[2][0].merged is not training
    modes = {name: module.training for name, module in model.named_modules()}
    assert {name for name, mode in modes.items() if mode != training} == {"0.1"}


def test_a_module_in_two_places_keeps_its_mode():
    shared = nn.BatchNorm2d(8)
    model = network(nn.Sequential(shared), nn.Sequential(shared))
    shared.eval()
    fuse_(model, torch.randn(2, 3, 12, 12))
    assert not shared.training
    assert model[3].training


def test_a_gradient_of_rounding_alone_is_no_difference():
    """The bias before a BatchNorm has no influence."""
    model = network().double()
    expected = try_model(model, [torch.randn(2, 3, 12, 12).double()], model)
    bias = expected.gradients[1]
    assert bias.norm() < 1e-9 * expected.gradients[0].norm()

    def changed(index: int, factor: float) -> Trial:
        gradients = list(expected.gradients)
        gradients[index] = gradients[index] * factor
        return expected._replace(gradients=gradients)

    assert difference(changed(1, 2.0), expected) == ""
    largest = max(range(len(expected.gradients)), key=lambda i: expected.gradients[i].norm())
    assert difference(changed(largest, 1 + 1e-6), expected) == "gradients"
    assert difference(changed(1, float("nan")), expected) == "gradients"
    outputs = [one * (1 + 1e-6) for one in expected.outputs]
    assert difference(expected._replace(outputs=outputs), expected) == "outputs"
