"""Tasks over one model: switches, copies, and what stays shared."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from task_networks import METHODS, images, network, optimizer_of, train, two_tasks
from torch import nn

from maskedconv import Tasks, convert_, fuse_
from maskedconv.nn.partly_learned import PartlyLearned


def values(model):
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def frozen(model):
    return {
        f"{name}.{key}": getattr(module, key)
        for name, module in model.named_modules()
        if isinstance(module, PartlyLearned)
        for key in module.frozen_buffers()
        if getattr(module, key) is not None
    }


@pytest.mark.parametrize("method", METHODS)
def test_200_switches_leave_both_bit_identical(method):
    tasks, x = two_tasks(method), images()
    before, out = {}, {}
    for name in tasks.names:
        tasks.set(name)
        before[name], out[name] = values(tasks.model), tasks(x)
    assert not torch.equal(out["a"], out["b"])
    kept = {key: (tensor, tensor._version) for key, tensor in frozen(tasks.model).items()}
    for step in range(200):
        tasks.set("ab"[step % 2])
    for name in tasks.names:
        tasks.set(name)
        assert tasks.active == name
        assert same(values(tasks.model), before[name])
        assert torch.equal(tasks(x), out[name])
    for key, tensor in frozen(tasks.model).items():
        assert (tensor, tensor._version) == kept[key]


@pytest.mark.parametrize("method", METHODS)
def test_a_task_is_trained_as_if_it_were_alone(method):
    tasks = two_tasks(method, trained=False)
    alone = {name: copy.deepcopy(tasks.model) for name in tasks.names}
    pairs = {}
    for name in tasks.names:
        tasks.set(name)
        pairs[name] = optimizer_of(tasks.model), optimizer_of(alone[name])
    for name in "abab":
        tasks.set(name)
        for optimizer, model in zip(pairs[name], (tasks.model, alone[name]), strict=True):
            torch.manual_seed(ord(name))
            train(model, optimizer)
    for name in tasks.names:
        tasks.set(name)
        assert same(tasks.model.state_dict(), alone[name].state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_conversions_copies_and_pickles_are_of_all_tasks(method):
    tasks, x = two_tasks(method), images()
    storages = {id(tensor) for tensor in frozen(tasks.model).values()}
    for other in (copy.deepcopy(tasks), pickle.loads(pickle.dumps(tasks))):
        for name in tasks.names:
            tasks.set(name)
            other.set(name)
            assert torch.equal(tasks(x), other(x))
        assert storages.isdisjoint(id(tensor) for tensor in frozen(other.model).values())
    tasks.double()
    for name in tasks.names:
        tasks.set(name)
        tensors = (*tasks.model.parameters(), *tasks.model.buffers())
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64}
        assert tasks(x.double()).dtype == torch.float64


def test_to_leaves_frozen_values_once():
    tasks = two_tasks("slice")
    count = sum(b.numel() for b in tasks.buffers()) + sum(p.numel() for p in tasks.parameters())
    tasks.to(torch.float64)
    tasks.set("a")
    tasks.to(torch.float32)
    after = sum(b.numel() for b in tasks.buffers()) + sum(p.numel() for p in tasks.parameters())
    shared = sum(tensor.numel() for tensor in frozen(tasks.model).values())
    own = sum(p.numel() for p in tasks.parameters())
    statistics = 2 * (2 * 16 + 1)
    assert count == after == shared + own + statistics


def test_a_model_that_was_moved_alone_is_refused():
    tasks = two_tasks("slice")
    tasks.model.double()
    with pytest.raises(ValueError, match=r"task 'a' is torch\.float32.*model is torch\.float64"):
        tasks.set("a")
    assert tasks.active == "b"
    tasks.model.float()
    tasks.set("a")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("other", ["a", "b"])
def test_the_state_dict_has_all_tasks_and_shared_values_once(method, other):
    tasks, x = two_tasks(method), images()
    state = {key: tensor.clone() for key, tensor in tasks.state_dict().items()}
    assert {key.split(".")[0] for key in state} == {"model", "tasks"} - (
        set() if frozen(tasks.model) else {"model"}
    )
    tasks.set("a")
    assert state.keys() == tasks.state_dict().keys()
    new = two_tasks(method, trained=False)
    new.set(other)
    new.load_state_dict(state)
    for name in tasks.names:
        tasks.set(name)
        new.set(name)
        assert torch.equal(tasks(x), new(x))
    del state["tasks.a.1.running_mean"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*1\.running_mean"):
        new.load_state_dict(state)


def test_heads_of_different_sizes():
    tasks, x = two_tasks("slice", head="5"), images()
    tasks.add("c", head=nn.Sequential(nn.Linear(64, 7), nn.Dropout()))
    assert not tasks.model[5].training
    state = tasks.state_dict()
    sizes = {}
    for name in tasks.names:
        tasks.set(name)
        sizes[name] = tasks(x).shape[1]
    assert sizes == {"a": 5, "b": 5, "c": 7}
    tasks.load_state_dict(state)
    tasks.train()
    tasks.set("c")
    assert tasks.model[5][1].training
    tasks.model.eval()
    tasks.set("a")
    assert not tasks.model[5].training
    with pytest.raises(ValueError, match="made without head="):
        two_tasks("slice").add("c", head=nn.Linear(64, 7))
    with pytest.raises(TypeError, match="head is a int; expected a module"):
        tasks.add("d", head=7)


def test_adding_and_removing():
    tasks = Tasks(convert_(network(), learned=0.25))
    assert (tasks.names, tasks.active) == ((), None)
    own = tasks.model[0].learned
    tasks.add("a")
    assert tasks.model[0].learned is own
    tasks.add("b")
    assert torch.equal(tasks.model[0].learned, own)
    assert tasks.model[0].learned is not own
    with pytest.raises(ValueError, match="task 'b' is active"):
        tasks.remove("b")
    with tasks.using("a"):
        assert tasks.active == "a"
        with pytest.raises(ValueError, match="'b' is made active again at the end of using"):
            tasks.remove("b")
    assert tasks.active == "b"
    tasks.remove("a")
    with tasks.using("b"), pytest.raises(ValueError, match="made active again at the end of using"):
        tasks.remove("b")
    tasks.remove("b")
    assert (tasks.names, tasks.active) == ((), None)
    assert tasks.state_dict().keys() == {f"model.{key}" for key in tasks.model.state_dict()}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_tasks_of_inference_mode_can_be_trained(method, tmp_path):
    tasks = two_tasks(method, "5")
    tasks.save("a", tmp_path / "a")
    with torch.inference_mode():
        tasks.add("c")
        tasks.load("d", tmp_path / "a")
        if method != "random_positions":
            tasks.add("e", seed=1)
        tasks(images())
    assert not any(one.is_inference() for one in (*tasks.parameters(), *tasks.buffers()))
    for name in tasks.names[2:]:
        tasks.set(name)
        train(tasks, optimizer_of(tasks.model))


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"random_positions"}))
def test_a_seed_draws_anew(method):
    tasks, x = two_tasks(method), images()
    outs = []
    for name, seed in (("c", 1), ("d", 1), ("e", 2)):
        tasks.add(name, seed=seed)
        outs.append(tasks.eval()(x))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("head", [None, "5"])
def test_a_seed_leaves_frozen_statistics(head):
    model = convert_(network(), learned=0.25, norm="frozen statistics")
    model[1].running_mean.fill_(3)
    model[1].weight.data.fill_(5)
    tasks = Tasks(model, head=head)
    tasks.add("a", seed=1)
    assert torch.equal(model[1].running_mean, torch.full((16,), 3.0))
    assert torch.equal(model[1].weight, torch.ones(16))


@pytest.mark.parametrize("head", [None, "5"])
def test_a_failed_draw_changes_nothing(head):
    tasks = two_tasks("random_positions", head=head)
    before = tasks.state_dict()
    with pytest.raises(ValueError, match="cannot be drawn anew"):
        tasks.add("c", seed=1)
    assert (tasks.names, tasks.active) == (("a", "b"), "b")
    assert same(tasks.state_dict(), before)
    alone = Tasks(convert_(network(), method=METHODS["random_positions"]))
    start = values(alone)
    with pytest.raises(ValueError, match="cannot be drawn anew"):
        alone.add("a", seed=1)
    assert same(alone.state_dict(), start)


def test_held_masks_belong_to_a_task():
    tasks, x = two_tasks("supermask"), images()
    layer, out = tasks.model[0], tasks(x)
    layer.hold_mask(torch.zeros_like(layer.pack_mask()))
    held = tasks(x)
    tasks.set("a")
    assert layer.held_mask is None
    layer.scores.data.zero_()
    tasks.set("b")
    assert torch.equal(tasks(x), held)
    layer.hold_mask(None)
    assert torch.equal(tasks(x), out)


def test_a_shared_module_and_tied_parameters():
    block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    first, last = nn.Linear(4, 4), nn.Linear(4, 4)
    last.weight = first.weight
    model = convert_(
        nn.Sequential(block, nn.ReLU(), block, nn.Flatten(2), first, last), learned=2, rest="learn"
    )
    tasks, x = Tasks(model), torch.randn(2, 4, 2, 2)
    out = {}
    for seed, name in enumerate("ab"):
        tasks.add(name, seed=seed)
        assert last.weight is first.weight
        out[name] = tasks.eval()(x)
    other = copy.deepcopy(tasks)
    other.set("a")
    state = {key: tensor.clone() for key, tensor in tasks.state_dict().items()}
    for one in other.parameters():
        one.data.normal_()
    other.load_state_dict(state)
    for name in "ab":
        other.set(name)
        assert torch.equal(other(x), out[name])


def test_bytes_of_a_task():
    tasks = two_tasks("slice", head="5", trained=False)
    learned = 4 * 3 * 9 + 4 * 16 * 9 + 2 * 16 + 5 * 64
    assert tasks.nbytes("a") == tasks.nbytes("b") == 4 * (learned + 2 * 16) + 8


def test_a_fused_model():
    x = images()
    plain, fused = two_tasks("slice"), two_tasks("slice")
    fuse_(fused.model, x)
    for tasks in (plain, fused):
        tasks.set("a")
        tasks.train()
        tasks(x).square().sum().backward()
    for one, other in zip(plain.model.parameters(), fused.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("method", ["slice", "supermask", "random_positions"])
def test_a_compiled_model(method):
    tasks, x = two_tasks(method), images()
    compiled = torch.compile(tasks.model, backend="aot_eager")
    for name in "abab":
        tasks.set(name)
        torch.testing.assert_close(compiled(x), tasks.model(x))
