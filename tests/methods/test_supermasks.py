"""Several tasks over one random network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskedconv import methods, models
from maskedconv.supermasks import Supermasks


def images(count=4):
    return torch.randn(count, 3, 16, 16)


def train(model, steps=3):
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        model(images()).logsumexp(1).sum().backward()
        optimiser.step()
    model.eval()


@pytest.mark.parametrize(
    "method",
    [
        methods.supermask(0.3),
        methods.biprop(0.3, norm_learned=True),
        methods.biprop(0.3, threshold="global"),
    ],
    ids=["supermask", "biprop", "global"],
)
def test_tasks_are_switched_in_place(method):
    torch.manual_seed(0)
    model = models.create("resnet_8", method=method, seed=0)
    tasks, outputs, input = Supermasks(model), {}, images()
    frozen = model.conv1.frozen.clone()
    for name in ("first", "second", "third"):
        tasks.reset_scores()
        train(model)
        tasks.add(name)
        outputs[name] = model(input)
    scores = model.conv1.scores.clone()
    for name in ("first", "third", "second", "first"):
        tasks.switch(name)
        assert torch.equal(model(input), outputs[name])
    assert not torch.equal(outputs["first"], outputs["second"])
    assert torch.equal(model.conv1.scores, scores)
    assert torch.equal(model.conv1.frozen, frozen)
    assert tasks.names == ("first", "second", "third")


@pytest.mark.parametrize("added", [True, False])
def test_release_brings_back_what_is_trained(added):
    """This includes values that no mask stands for, whether their task was added or not."""
    torch.manual_seed(0)
    model = models.create("resnet_8", method=methods.biprop(0.3, norm_learned=True), seed=0)
    model.fc = nn.Linear(64, 10)
    tasks, input = Supermasks(model), images()
    train(model)
    tasks.add("first")
    tasks.reset_scores()
    train(model)
    if added:
        tasks.add("second")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    output = model(input)
    for _ in range(2):
        for name in tasks.names:
            tasks.switch(name)
        tasks.release()
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
        assert torch.equal(model(input), output)
    train(model)
    tasks.release()
    assert not torch.equal(model.fc.weight, before["fc.weight"])


def test_a_task_takes_a_bit_a_weight():
    model = models.create("conv2", method=methods.supermask(), seed=0, image_size=16)
    tasks = Supermasks(model)
    tasks.add("only")
    assert tasks.nbytes("only") == sum(p.numel() for p in model.parameters()) // 8


def test_switching_copies_into_the_same_memory():
    model = models.create("conv2", method=methods.supermask(), seed=0, image_size=16)
    tasks = Supermasks(model)
    for name in ("first", "second"):
        tasks.reset_scores()
        tasks.add(name)
    tasks.switch("first")
    bits = model.fc[0].held_mask
    tasks.switch("second")
    assert model.fc[0].held_mask is bits
    assert model.fc[0].num_kept == model.fc[0].num_learned // 2
    tasks.release()
    assert model.fc[0].held_mask is None


def test_a_switch_in_inference_mode():
    model = models.create("conv2", method=methods.supermask(), seed=0, image_size=16)
    tasks = Supermasks(model)
    with torch.inference_mode():
        tasks.add("first")
        tasks.switch("first")
    tasks.reset_scores()
    tasks.add("second")
    with torch.inference_mode():
        tasks.switch("first")
    tasks.switch("second")
    tasks.release()
    train(model, 1)


def test_errors():
    with pytest.raises(ValueError, match=r"model \(Linear\) has no supermask layers"):
        Supermasks(nn.Linear(2, 2))
    tasks = Supermasks(models.create("fc_300_100", method=methods.supermask(), image_size=8))
    with pytest.raises(ValueError, match="name is 'first'; expected one of the tasks: none"):
        tasks.switch("first")
