"""One threshold for layers outside of a network, and for scores that are replaced."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad, vmap

from maskedconv import count_kept, merge_, save
from maskedconv.nn import SupermaskConv2d, SupermaskLinear, seen_threshold
from maskedconv.nn.global_threshold import share_threshold, update_thresholds
from maskedconv.nn.rerandomise import rerandomise_
from maskedconv.nn.scored import scored_layers
from maskedconv.supermasks import Supermasks


def by_hand(**options):
    """Layers without a network that computes their threshold."""
    options = {"k": 0.3, "threshold": "global", "weights": "kaiming", **options}
    return nn.Sequential(
        SupermaskConv2d(2, 3, 3, seed=0, **options),
        nn.Flatten(),
        SupermaskLinear(12, 4, seed=1, **options),
    )


def stepped(model):
    """The model after a training step: the threshold is that of earlier scores."""
    update_thresholds(model)
    model(images()).square().sum().backward()
    torch.optim.SGD(model.parameters(), 3.0).step()
    return model


def images():
    return torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def masks_of(model):
    update_thresholds(model)
    return [model[index].mask for index in (0, 2)]


def test_weights_without_a_network_are_drawn_anew():
    model = stepped(by_hand(rerandomise_every=1, rerandomise_fraction=1.0))
    before = [model[index].frozen.clone() for index in (0, 2)]
    rerandomise_(model, 1, seed=0)
    for index, frozen, mask in zip((0, 2), before, masks_of(model), strict=True):
        assert torch.equal(model[index].frozen == frozen, mask)


def test_tasks_without_a_network():
    model = stepped(by_hand())
    expected = masks_of(stepped(by_hand()))
    tasks = Supermasks(model)
    tasks.add("a")
    tasks.switch("a")
    assert torch.equal(model[2].mask, expected[1])
    assert tasks.infer(images()) == "a"


def test_readers_without_a_network(tmp_path):
    expected = masks_of(stepped(by_hand()))
    kept = sum(int(mask.sum()) for mask in expected)
    assert count_kept(stepped(by_hand())).kept == kept
    save(stepped(by_hand()), tmp_path / "file", masks=True)
    merged = merge_(stepped(by_hand()))
    assert torch.equal(merged[0].weight != 0, expected[0])
    # A part keeps what it holds.
    model = stepped(by_hand())
    update_thresholds(model)
    assert count_kept(model[:1]).kept == int(expected[0].sum())


@pytest.fixture
def _swapping():
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("_swapping")
def test_swapped_parameters():
    model, start = by_hand(), by_hand()
    share_threshold(model)
    share_threshold(start)
    expected = model(images()).detach()
    model.double()
    torch.testing.assert_close(model(images().double()).detach(), expected.double())
    model.float()
    model(images())
    start[0].scores.data.neg_()
    model.load_state_dict({key: value.roll(1) for key, value in start.state_dict().items()})
    with pytest.raises(RuntimeError, match="threshold of the network is not known"):
        _ = model[0].mask
    assert model(images()).isfinite().all()
    start.to("meta")(images().to("meta"))
    assert start.to_empty(device="cpu")[0].scores.device.type == "cpu"


def test_a_threshold_without_values():
    model = by_hand()
    share_threshold(model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model(images())
    with pytest.raises(RuntimeError, match="threshold of the network is not known"):
        _ = model[0].mask
    assert model(images()).isfinite().all()


def test_scores_in_memory_that_others_had():
    """Their address and version may be those that the threshold was computed for."""
    model = by_hand()
    share_threshold(model)
    model(images())
    for change in (nn.Module.half, nn.Module.float):
        change(model)
        with pytest.raises(RuntimeError, match="threshold of the network is not known"):
            _ = model[0].mask


def test_scores_that_are_assigned():
    """A Parameter of the same memory has the same version and address."""
    model = stepped(by_hand())
    update_thresholds(model)
    model[0].scores = nn.Parameter(model[0].scores.detach())
    with pytest.raises(RuntimeError, match="threshold of the network is not known"):
        _ = model[0].mask


@pytest.mark.parametrize("transform", [grad, vmap], ids=["grad", "vmap"])
def test_scores_of_another_transform(transform):
    """Wrapped scores have no address, so that a threshold is not valid in the next call."""

    class Caller(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = by_hand()

        def forward(self, x, update):
            if update:
                update_thresholds(self.model)
            return self.model(x).square().sum()

    caller, x = Caller(), images()
    scores = {key: torch.stack([one.detach()] * 2) for key, one in caller.named_parameters()}
    if transform is grad:
        scores = {key: one[0] for key, one in scores.items()}

    def call(update):
        return transform(lambda values: functional_call(caller, values, (x, update)))(scores)

    call(True)
    with pytest.raises(RuntimeError, match="threshold of the network is not known"):
        call(False)


def test_networks_without_a_hook_stay_apart(tmp_path):
    """Each has its own masks, whether or not its threshold is that of the present scores."""
    first = stepped(by_hand())
    first[0].scores.data.mul_(100)
    both = nn.ModuleDict({"first": first, "second": stepped(copy.deepcopy(first))})
    expected = [masks_of(copy.deepcopy(model)) for model in both.values()]
    assert count_kept(both).kept == sum(int(m.sum()) for masks in expected for m in masks)
    save(both, tmp_path / "file", masks=True)
    for model, masks in zip(both.values(), expected, strict=True):
        assert all(map(torch.equal, [one.mask for one in scored_layers(model)], masks))
    # The third one may be a part of either.
    both["third"] = by_hand()
    with pytest.raises(RuntimeError, match="threshold of the network is not known"):
        count_kept(both)


def test_a_part_whose_scores_have_changed():
    for part in (lambda m: m[:1], lambda m: copy.deepcopy(m[:1]), lambda m: m[0].to_frozen()):
        with pytest.raises(RuntimeError, match="threshold of the network is not known"):
            count_kept(part(stepped(by_hand())))


def test_a_layer_that_was_added_to_a_network():
    model = by_hand()
    share_threshold(model)
    model.append(SupermaskLinear(4, 4, k=0.3, threshold="global"))
    model(images())
    model[3].scores.data = model[3].scores.detach().neg()
    with pytest.raises(RuntimeError, match="threshold of the network is not known"):
        count_kept(model[3:])
    # All of them, in another module, are that network.
    expected = count_kept(copy.deepcopy(model)).kept
    assert count_kept(nn.Sequential(*model)).kept == expected


def test_merging_layers_without_a_network_together():
    model = stepped(by_hand())
    model[2].scores.register_hook(lambda gradient: gradient)
    with pytest.raises(ValueError, match="0: its network has one threshold, and 2 is left alone"):
        merge_(model)


def test_a_forward_pass_looks_at_the_modules_once(monkeypatch):
    walks = []

    class Network(nn.Sequential):
        def modules(self):
            walks.append(self)
            return super().modules()

    model = Network(*by_hand())
    share_threshold(model)
    walks.clear()
    monkeypatch.setattr(seen_threshold, "detect_fake_mode", None)  # It is not called.
    model(images())
    assert len(walks) == 1
