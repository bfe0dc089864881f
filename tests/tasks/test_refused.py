"""Models and names that tasks refuse."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from task_networks import images, network, two_tasks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from maskedconv import MaskedConv2d, Tasks, convert_, load, merge_, methods, save


class _Counter(nn.Module):
    def get_extra_state(self):
        return 1


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 4)
        self.again = nn.ModuleList([self.head])


@pytest.mark.parametrize(
    ("model", "head", "message"),
    [
        (nn.Sequential(nn.LSTM(4, 4)), None, "0._flat_weight"),
        (nn.Sequential(_Counter()), None, r"0 \(_Counter\) has an extra state"),
        (nn.Sequential(nn.LazyLinear(4)), None, "UninitializedParameter; expected a plain tensor"),
        (_Twice(), "head", "again.0 is a part of it"),
        (nn.Sequential(nn.Linear(4, 4)), "1", "head is '1'; expected a module of the model: 0"),
    ],
)
def test_models_that_are_refused(model, head, message):
    with pytest.raises(ValueError, match=message):
        Tasks(model, head=head)


@pytest.mark.parametrize("part", [False, True])
def test_a_model_has_one_tasks(part):
    tasks, x = two_tasks("slice"), images()
    out = tasks(x)
    for model in (tasks.model[3:] if part else tasks.model, nn.Sequential(tasks)):
        with pytest.raises(ValueError, match=r"learned of the model has the values of another"):
            Tasks(model)
    assert torch.equal(tasks(x), out)
    Tasks(copy.deepcopy(tasks.model)).add("c")


@pytest.mark.parametrize("act", [merge_, Tasks], ids=["merge_", "Tasks"])
def test_a_model_is_free_without_its_tasks(act):
    """At once, and not when the garbage collector runs."""
    tasks, x = two_tasks("slice"), images(6)
    with torch.no_grad():
        tasks(x, task_ids=["a", "b"] * 3)
    model, out = tasks.model, tasks(x)
    gc.disable()
    try:
        del tasks
        act(model)
    finally:
        gc.enable()
    torch.testing.assert_close(model(x), out)


def test_redrawn_weights_are_refused():
    method = methods.supermask(weights="kaiming", rerandomise_every=3)
    with pytest.raises(ValueError, match="rerandomise_every; expected 0"):
        Tasks(convert_(network(), method=method))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("a", ValueError, "name is 'a', which exists"),
        ("", ValueError, "expected a name without dots"),
        ("a.b", ValueError, "expected a name without dots"),
        (1, TypeError, "name is a int; expected a str"),
    ],
)
def test_wrong_names(name, error, message):
    tasks = two_tasks("slice", trained=False)
    with pytest.raises(error, match=message):
        tasks.add(name)


@pytest.mark.parametrize("act", ["set", "remove", "nbytes"])
def test_unknown_names(act):
    with pytest.raises(ValueError, match="name is 'c'; expected one of the tasks: a, b"):
        getattr(two_tasks("slice", trained=False), act)("c")


def convert(model):
    return convert_(model, learned=0.25)


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("act", [convert, merge_])
def test_the_model_of_tasks_keeps_its_layers(act, around):
    tasks, x = two_tasks("slice"), images()
    tasks.set("a")
    out = tasks(x)
    tasks.set("b")
    with pytest.raises(ValueError, match=r"values of a Tasks.*copy\.deepcopy\(tasks\.model\)"):
        act(nn.Sequential(tasks.model) if around else tasks.model)
    tasks.set("a")
    assert torch.equal(tasks(x), out)
    merged = merge_(copy.deepcopy(tasks.model))
    assert type(merged[0]) is nn.Conv2d
    assert not merged._forward_hooks


def test_a_file_changes_neither_layers_nor_shared_values(tmp_path):
    save(convert(network()), tmp_path / "a")
    plain, converted = Tasks(network()), Tasks(convert(network()))
    for tasks, message in ((plain, "0 is a layer of the method slice"), (converted, "frozen")):
        tasks.add("own")
        before = {key: tensor.clone() for key, tensor in tasks.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            load(tasks.model, tmp_path / "a")
        assert all(torch.equal(one, before[key]) for key, one in tasks.state_dict().items())
    assert not any(isinstance(module, MaskedConv2d) for module in plain.modules())


def test_data_parallel_of_one_task():
    tasks = two_tasks("slice", trained=False)
    # Its constructor needs other processes; this is the line of it that matters.
    parallel = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(parallel)
    parallel.module = nn.Sequential(tasks)
    parallel.module = copy.deepcopy(tasks.model)
    with pytest.raises(ValueError, match=r"one task of a Tasks.*DistributedDataParallel\(tasks\)"):
        parallel.module = nn.Sequential(tasks.model)


def test_a_head_belongs_to_one_task():
    tasks = Tasks(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))), head="1")
    own, body = tasks.model[1], tasks.model[0]
    with pytest.raises(ValueError, match=r"head has model\.0, of which each task needs its own"):
        tasks.add("a", head=nn.Sequential(body))
    tasks.add("a", head=nn.Sequential(own, nn.ReLU()))
    tied = nn.Linear(4, 4)
    tied.weight = own[0].weight
    tasks.add("b", head=nn.Linear(4, 2))
    wrong = {r"tasks\.a\.1\.0": own, r"tasks\.a\.1\.0\.0\.weight": tied}
    wrong |= {r"tasks\.b\.1": tasks.model[1], r"model\.0": nn.Sequential(body)}
    for name, head in wrong.items():
        with pytest.raises(ValueError, match=f"head has {name}, of which each task needs its own"):
            tasks.add("c", head=head)
    assert tasks.names == ("a", "b")
    tasks.add("c", head=copy.deepcopy(own))
