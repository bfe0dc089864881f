"""Activation checkpointing: parts of the model that run again within backward."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from task_networks import METHODS, images
from torch import nn
from torch.utils.checkpoint import checkpoint

from maskedconv import Tasks, convert_, merge_

IDS = ["b", "a", "a", "b", "a", "b"]
KINDS = [None, False, True]


class Network(nn.Module):
    """Runs its middle under a checkpoint: of either kind, or without one."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Conv2d(3, 16, 3, bias=False)
        self.middle = nn.Sequential(
            nn.Tanh(), nn.Conv2d(16, 16, 3, bias=False), nn.GroupNorm(4, 16), nn.Tanh()
        )
        self.last = nn.Linear(64, 5, bias=False)

    def forward(self, x):
        x = again(self.middle, self.reentrant, self.first(x))
        return self.last(x.flatten(1))


def again(function, reentrant, *arguments):
    if reentrant is None:
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=reentrant)


def two_tasks(reentrant, method="slice"):
    torch.manual_seed(0)
    tasks = Tasks(convert_(Network(reentrant), method=METHODS[method], seed=0)).double()
    tasks.add("a")
    tasks.add("b", seed=1)
    return tasks


def mixed(tasks, x):
    return tasks(x, task_ids=IDS).square().sum()


def outside(tasks, x):
    with tasks.using("a"):
        return tasks.model(x).square().sum()


def together(tasks, x):
    losses = []
    for name in "aba":
        tasks.set(name)
        losses.append(tasks.model(x + len(losses)).square().sum())
    tasks.set("b")
    return losses[0] + 2 * losses[1] + 3 * losses[2]


def one_after_another(tasks, x):
    with tasks.using("a"):
        y = tasks.model(x)
    return tasks.model(y.repeat(1, 22)[:, :108].reshape(6, 3, 6, 6)).square().sum()


def gradients(tasks, loss, x):
    tasks.zero_grad()
    loss(tasks, x.requires_grad_()).backward()
    grads = {name: p.grad for name, p in tasks.named_parameters() if p.grad is not None}
    x.grad = None
    return {name: grad.clone() for name, grad in grads.items()}


@pytest.mark.parametrize("method", ["slice", "channels", "norm_only", "supermask", "global"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("loss", [mixed, outside, together, one_after_another])
def test_gradients_are_those_without_checkpoints(loss, reentrant, method):
    x = images(6).double()
    expected = gradients(two_tasks(None, method), loss, x)
    tasks = two_tasks(reentrant, method)
    for one in (tasks, copy.deepcopy(tasks), pickle.loads(pickle.dumps(tasks))):
        found = gradients(one, loss, x)
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])
        assert one.active == "b"


@pytest.mark.parametrize("reentrant", [False, True])
def test_in_evaluation_the_tasks_run_one_by_one(reentrant):
    x, plain, tasks = images(6).double(), two_tasks(None).eval(), two_tasks(reentrant).eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the tasks of a batch")
        expected = gradients(plain, mixed, x)
        with torch.no_grad():
            assert torch.equal(mixed(tasks, x), mixed(plain, x))
    with pytest.warns(UserWarning, match="checkpointing|without gradients"):
        found = gradients(tasks, mixed, x)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


class Scaled(nn.Module):
    """Checkpoints a function of a learned value of its own."""

    def __init__(self):
        super().__init__()
        self.scale, self.conv = nn.Parameter(torch.ones(8, 1, 1)), nn.Conv2d(3, 8, 3)

    def forward(self, x):
        x = self.conv(x)
        return checkpoint(lambda one: (one * self.scale).tanh(), x, use_reentrant=False).flatten(1)


def test_a_value_of_the_modules_own():
    tasks = Tasks(nn.Sequential(Scaled()).double())
    for name in "ab":
        tasks.add(name)
        nn.init.normal_(tasks.model[0].scale)
    x = images(6).double()
    expected = gradients(tasks.train(), mixed, x)
    with pytest.warns(UserWarning, match="checkpointing"):
        found = gradients(tasks.eval(), mixed, x)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_a_checkpoint_around_the_model():
    x, tasks = images(6).double(), two_tasks(None)
    expected = gradients(tasks, outside, x)

    def around(reentrant):
        def loss(tasks, x):
            with tasks.using("a"):
                return again(tasks.model, reentrant, x).square().sum()

        return loss

    found = gradients(tasks, around(False), x)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    with pytest.raises(RuntimeError, match="nothing says for which task; expected"):
        gradients(tasks, around(True), x)
    assert tasks.active == "b"
    tasks.set("a")
    tasks.remove("b")
    gradients(tasks, around(True), x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_around_a_batch_of_several_tasks(reentrant, training):
    x, tasks = images(6).double(), two_tasks(None).train(training)
    expected = gradients(tasks, mixed, x)

    def around(tasks, x):
        output = checkpoint(lambda one: tasks(one, task_ids=IDS), x, use_reentrant=reentrant)
        return output.square().sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gradients(tasks, around, x)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_a_failed_backward_pass_leaves_the_active_task():
    tasks, x = two_tasks(False), images(6).double()

    def fail(_):
        assert tasks.active == "a"
        raise ValueError("no gradient")

    x.requires_grad_().register_hook(fail)
    loss = outside(tasks, x)
    with pytest.raises(ValueError, match="no gradient"):
        loss.backward()
    assert tasks.active == "b"


def test_a_task_that_was_removed_meanwhile():
    tasks, x = two_tasks(None), images(6).double()
    loss = outside(tasks, x.requires_grad_())
    expected = outside(tasks, x)
    expected.backward()
    expected_grad, x.grad = x.grad, None
    tasks.set("b")
    tasks.remove("a")
    loss.backward()
    torch.testing.assert_close(x.grad, expected_grad)
    assert tasks.active == "b"


def test_a_call_within_a_backward_pass_of_something_else_names_its_task():
    tasks, x = two_tasks(None), images(6).double()
    one = torch.ones((), requires_grad=True)
    one.register_hook(lambda _: tasks(x).sum().detach())
    with pytest.raises(RuntimeError, match=r"expected using\(name\) around the call"):
        (one * 2).backward()
    found = []

    def named(_):
        with tasks.using("a"):
            found.append(tasks(x))

    other = torch.ones((), requires_grad=True)
    other.register_hook(named)
    (other * 2).backward()
    with tasks.using("a"):
        torch.testing.assert_close(found[0], tasks(x))


def test_a_merged_copy_of_the_model_has_no_hooks():
    tasks = two_tasks(None)
    plain = merge_(copy.deepcopy(tasks.model))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in plain.modules())
    assert b"maskedconv" not in pickle.dumps(plain)
    # The model itself is still that of the tasks.
    assert tasks.model._forward_pre_hooks


def test_a_copy_of_the_model_alone_follows_nothing():
    tasks, x = two_tasks(None), images(6).double()
    alone = copy.deepcopy(tasks.model)
    tasks.set("a")
    checkpoint(alone, x.requires_grad_(), use_reentrant=True).sum().backward()
    assert tasks.active == "a"


def test_what_the_model_returns_as_it_got_it():
    class Passes(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Network(False)

        def forward(self, x, y):
            return self.inner(x), y

    torch.manual_seed(0)
    tasks = Tasks(convert_(Passes().double(), learned=0.5))
    tasks.add("a")
    tasks.add("b", seed=1)
    x = images(6).double()

    def loss(tasks, x):
        with tasks.using("a"):
            y, _ = tasks.model(x, x)
        with tasks.using("b"):
            z, y = tasks.model(x, y)
        return (y * z).sum()

    found = gradients(tasks, loss, x)
    tasks.model.inner.reentrant = None
    expected = gradients(tasks, loss, x)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_compiled_without_a_graph_break():
    tasks, x = two_tasks(None).eval(), images(6).double()
    for whole in (tasks, tasks.model):
        compiled = torch.compile(whole, backend="eager", fullgraph=True)
        for name in "aba":
            tasks.set(name)
            torch.testing.assert_close(compiled(x), tasks.model(x))
