"""The bank that a layer keeps under autocast: only the learned filters are converted again."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import maskedconv
from maskedconv.ops.pack_filters import kept

x = torch.randn(2, 4, 6, 6)


@pytest.fixture
def packs(monkeypatch):
    """The calls that pack a whole bank."""
    calls = []
    original = kept.pack_filters
    monkeypatch.setattr(
        kept, "pack_filters", lambda *arguments: calls.append(1) or original(*arguments)
    )
    return calls


def layer_of(slice_dim=0):
    return maskedconv.MaskedConv2d(4, 6, 3, learned=2, slice_dim=slice_dim, seed=0)


def run(layer, input=x):
    with torch.autocast("cpu", torch.bfloat16):
        return layer(input)


def expected(layer, input=x):
    with torch.autocast("cpu", torch.bfloat16):
        return layer.to_conv2d()(input)


@pytest.mark.parametrize("slice_dim", range(4))
def test_training_packs_once_and_follows_the_learned_filters(packs, slice_dim):
    layer = layer_of(slice_dim)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(4):
        output = run(layer)
        assert torch.equal(output, expected(layer))
        optimizer.zero_grad()
        output.float().square().sum().backward()
        optimizer.step()
    assert len(packs) == 1


def test_gradients_are_those_of_a_bank_packed_anew():
    layer, fresh = layer_of(), layer_of()
    run(layer)
    grads = []
    for each in (layer, fresh):
        input = x.clone().requires_grad_()
        run(each, input).float().square().sum().backward()
        grads.append((input.grad, each.learned.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])


def change_frozen(layer):
    with torch.no_grad():
        layer.frozen.mul_(2)


def replace_frozen(layer):
    layer.frozen = torch.randn_like(layer.frozen)


def load_other(layer):
    layer.load_state_dict(maskedconv.MaskedConv2d(4, 6, 3, learned=2, seed=1).state_dict())


def other_format(layer):
    layer.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("change", [change_frozen, replace_frozen, load_other, other_format])
def test_a_change_of_the_frozen_filters_packs_again(packs, change):
    layer = layer_of()
    run(layer)
    change(layer)
    assert torch.equal(run(layer), expected(layer))
    assert len(packs) == 2


def test_two_calls_before_backward():
    layer = layer_of()
    input = x.clone().requires_grad_()
    (run(layer, input) + run(layer, 2 * input)).float().sum().backward()
    other = layer_of()
    again = x.clone().requires_grad_()
    run(other, again).float().sum().backward()
    run(other, 2 * again).float().sum().backward()
    torch.testing.assert_close(layer.learned.grad, other.learned.grad)
    torch.testing.assert_close(input.grad, again.grad)


def test_learned_filters_changed_before_backward_are_an_error_as_in_pytorch():
    layer = layer_of()
    output = run(layer, x.clone().requires_grad_())
    with torch.no_grad():
        layer.learned.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.float().sum().backward()


def test_without_a_conversion_nothing_is_kept():
    layer = layer_of()
    layer(x)
    assert layer.means.bank._packed is None


def test_copies_and_inference_mode_start_empty(packs):
    layer = layer_of()
    run(layer)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(run(other), run(layer))
    assert len(packs) == 3
    with torch.inference_mode():
        run(layer)
    run(layer, x.clone().requires_grad_()).float().sum().backward()
