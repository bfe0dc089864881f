"""The task of a batch, found by one gradient step."""

from __future__ import annotations

import copy

import pytest
import torch
from task_networks import METHODS, images, network, two_tasks
from torch import nn
from torch.nn import functional as F

from maskedconv import Tasks, convert_, data, methods
from maskedconv.supermasks import Supermasks
from maskedconv.superposition import entropy_gradient, merged

EPOCHS = 4


def entropy(x):
    return -(x.softmax(-1) * x.log_softmax(-1)).sum(-1).mean()


def mixture(models, shares):
    """A plain model with the given shares of each model's values."""
    states = [model.state_dict() for model in models]
    pairs = list(zip(shares, states, strict=True))
    mixed = {
        key: sum(share * state[key] for share, state in pairs)
        if value.is_floating_point()
        else value
        for key, value in states[0].items()
    }
    other = copy.deepcopy(models[0])
    other.load_state_dict(mixed)
    return other


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_is_that_of_the_shares(method):
    tasks, x = two_tasks(method).double(), images(6).double()
    plain = []
    for name in tasks.names:
        tasks.set(name)
        plain.append(merged(tasks.model))
        torch.testing.assert_close(plain[-1](x), tasks.eval()(x))
    found = entropy_gradient([lambda: plain[0], lambda: plain[1]], x)
    middle, step = mixture(plain, [0.5, 0.5]), 1e-5
    for index in range(2):
        ends = []
        for sign in (1, -1):
            shares = [0.5, 0.5]
            shares[index] += sign * step
            other = mixture(plain, shares)
            # Statistics have no gradient.
            for moved, kept in zip(other.buffers(), middle.buffers(), strict=True):
                moved.copy_(kept)
            ends.append(entropy(other(x)).detach())
        expected = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(found[index], expected, rtol=1e-6, atol=1e-9)


def masked_network():
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 256, bias=False), nn.ReLU()]
    layers += [nn.Linear(256, 256, bias=False), nn.ReLU(), nn.Linear(256, 10, bias=False)]
    return convert_(nn.Sequential(*layers), method=methods.supermask(k=0.5), seed=0)


def permuted(images, task):
    """Digits whose pixels are in an order of the task's own."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(task))
    return images.flatten(2)[..., order].view_as(images)


def train(model, digits, task):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for epoch in range(EPOCHS):
        for batch, labels in data.train_batches(digits, 50, seed=0, epoch=epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(permuted(batch, task)), labels).backward()
            optimizer.step()


def test_permuted_digits_are_told_apart():
    digits, model = data.load("digits"), masked_network()
    tasks, masks = Tasks(model), Supermasks(copy.deepcopy(model))
    for index in range(3):
        tasks.add(str(index), seed=index)
        train(tasks.model, digits, index)
        masks._model.load_state_dict(model.state_dict())
        masks.add(str(index))
    batches = [batch for batch, _ in data.test_batches(digits, 32)][:8]
    before = {key: tensor.clone() for key, tensor in tasks.state_dict().items()}
    for index in range(3):
        found = [tasks.infer(permuted(batch, index)) for batch in batches]
        assert found.count(str(index)) >= 7
        assert masks.infer(permuted(batches[0], index)) == found[0]
    assert tasks.active == "2"
    after = tasks.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert model[1].held_mask is None


def test_wrong_tasks():
    model, x = convert_(network(), method=METHODS["supermask"], seed=0), images()
    for empty in (Tasks(model), Supermasks(model)):
        with pytest.raises(ValueError, match="there are no tasks"):
            empty.infer(x)
    tasks = two_tasks("slice", "5")
    tasks.add("c", head=nn.Linear(64, 7, bias=False))
    with pytest.raises(ValueError, match=r"5\.weight is \[7, 64\] in one task and \[5, 64\]"):
        tasks.infer(x)
    held = two_tasks("slice")
    held.model.layers = [held.model[0]]
    with (
        pytest.warns(UserWarning, match="left 1 of 2 layers alone"),
        pytest.raises(ValueError, match="0 cannot be merged"),
    ):
        held.infer(x)


@pytest.mark.parametrize("model_in_mode", [False, True])
def test_in_inference_mode(model_in_mode):
    """The answer is the same, whatever was made in that mode."""
    with torch.inference_mode(model_in_mode):
        model = convert_(network(), method=METHODS["supermask"], seed=0)
        masks = Supermasks(model)
        for name in ("a", "b"):
            masks.reset_scores(torch.Generator().manual_seed(ord(name)))
            masks.add(name)
    tasks, x = two_tasks("slice"), images()
    expected, answer = masks.infer(x), tasks.infer(x)
    with torch.inference_mode():
        assert masks.infer(x) == expected
        assert tasks.infer(x) == answer
