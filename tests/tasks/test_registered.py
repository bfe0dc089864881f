"""Names and order of what tasks have do not depend on which task is active."""

from __future__ import annotations

import copy

import pytest
import torch
from task_networks import METHODS, images, train, two_tasks
from torch import nn
from torch.optim.swa_utils import AveragedModel


def named(tasks):
    return {**dict(tasks.named_parameters()), **dict(tasks.named_buffers())}


def at(tasks, name):
    tasks.set(name)
    return tasks


@pytest.mark.parametrize("head", [None, "5"])
@pytest.mark.parametrize("method", METHODS)
def test_names_and_order_of_any_active_task(method, head):
    tasks = two_tasks(method, head)
    expected = list(named(at(tasks, "a")).items())
    found = list(named(at(tasks, "b")).items())
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert all(one is other for (_, one), (_, other) in zip(found, expected, strict=True))
    state = tasks.state_dict(keep_vars=True)
    assert list(state) == list(at(tasks, "a").state_dict())
    assert all(state[name] is tensor for name, tensor in found if name in state)
    around = nn.Sequential(tasks)
    for name in "ab":
        tasks.set(name)
        assert [f"0.{one}" for one, _ in expected] == list(named(around))


@pytest.mark.parametrize("use_buffers", [False, True])
def test_an_average_of_tasks(use_buffers):
    tasks = at(two_tasks("slice", "5"), "a")
    newest = AveragedModel(tasks, avg_fn=lambda _, new, count: new, use_buffers=use_buffers)
    tasks.set("b")
    with torch.no_grad():
        for one in tasks.parameters():
            one.normal_()
    for _ in range(2):
        newest.update_parameters(tasks)
    expected, found = tasks.state_dict(), newest.module.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], one) for name, one in expected.items())


@pytest.mark.parametrize("active", ["a", "b"])
def test_an_optimizer_finds_its_parameters_again(active):
    def momenta(tasks, optimizer):
        return {
            name: optimizer.state[one]["momentum_buffer"]
            for name, one in tasks.named_parameters()
            if optimizer.state.get(one, {}).get("momentum_buffer") is not None
        }

    tasks, other = at(two_tasks("slice", "5"), "a"), at(two_tasks("slice", "5"), active)
    first, second = (torch.optim.SGD(one.parameters(), 0.1, momentum=0.9) for one in (tasks, other))
    train(tasks, first)
    second.load_state_dict(first.state_dict())
    expected, found = momenta(tasks, first), momenta(other, second)
    assert {name.split(".")[1] for name in expected} == {"a"}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], one) for name, one in expected.items())


def test_values_that_others_put_into_the_model_are_found():
    tasks = two_tasks("slice")
    tasks.model[5].weight = weight = nn.Parameter(torch.ones(5, 64))
    tasks.model[1].running_mean = mean = torch.ones(16)
    assert named(tasks)["tasks.b.5.weight"] is weight
    assert tasks.state_dict(keep_vars=True)["tasks.b.1.running_mean"] is mean
    state = {name: torch.full_like(one, 2) for name, one in tasks.state_dict().items()}
    tasks.load_state_dict(state, assign=True)
    tasks.set("a")
    tasks.set("b")
    assert tasks.model[5].weight.eq(2).all()
    assert named(tasks)["tasks.b.5.weight"] is tasks.model[5].weight


def test_a_search_within_a_batch_of_several_tasks_changes_nothing():
    tasks, x, seen = two_tasks("slice"), images(6), []
    expected = copy.deepcopy(tasks)(x, task_ids=["a", "b"] * 3)
    tasks.model[2].register_forward_hook(lambda *_: seen.append(list(tasks.parameters())))
    torch.testing.assert_close(tasks(x, task_ids=["a", "b"] * 3), expected)
    assert {len(one) for one in seen} == {len(list(tasks.parameters()))}
