"""Batches of several tasks against each task's rows alone."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
import torchvision
from mixed_batches import IDS, alone, close
from task_networks import METHODS, images, two_tasks
from torch import nn

from maskedconv import Tasks, convert_, methods, models, save
from maskedconv.nn import remembered


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("head", [None, "5"])
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"global"}))
def test_every_method(method, head):
    tasks, x = two_tasks(method, head).double(), images(6).double()
    state = {key: tensor.clone() for key, tensor in tasks.state_dict().items()}
    expected = alone(tasks, x, IDS)
    close(tasks(x, task_ids=IDS), expected)
    close(tasks(x, task_ids=torch.tensor([1, 0, 0, 1, 0, 1])), expected)
    close(tasks.rows(x, task_ids=IDS), expected)
    close(tasks(x[:2], task_ids=IDS[:2]), alone(tasks, x[:2], IDS[:2]))
    close(tasks(x[:2], task_ids=["a", "a"]), alone(tasks, x[:2], ["a", "a"]))
    assert tasks.active == "b"
    after = tasks.state_dict()
    assert state.keys() == after.keys()
    assert all(torch.equal(state[key], after[key]) for key in state)
    for other in (copy.deepcopy(tasks), pickle.loads(pickle.dumps(tasks))):
        close(other(x, task_ids=IDS), expected)


@pytest.mark.filterwarnings("error")
def test_tasks_of_other_positions(tmp_path, monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    options = {"method": methods.random_positions(200), "rest": "freeze"}
    save(convert_(copy.deepcopy(model), seed=1, **options), tmp_path / "file", frozen=True)
    tasks, x = Tasks(convert_(model, seed=0, **options)), images(6).double()
    tasks.add("a")
    tasks.load("b", tmp_path / "file")
    assert not torch.equal(*(tasks.get_buffer(f"tasks.{name}.0.positions") for name in "ab"))
    tasks.eval().double()
    expected = alone(tasks, x, IDS)
    summed = []
    monkeypatch.setattr(remembered, "sum_of_bits", summed.append)
    close(tasks(x, task_ids=IDS), expected)
    tasks.set("b")
    close(tasks(x, task_ids=IDS), expected)
    assert not summed


def test_the_frozen_filters_run_once(monkeypatch):
    tasks, x = two_tasks("slice"), images(6)
    calls = []
    plain = nn.Conv2d._conv_forward

    def counted(self, input, weight, bias):
        calls.append((input.size(0), weight.size(0)))
        return plain(self, input, weight, bias)

    tasks(x, task_ids=IDS)
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", counted)
    tasks(x, task_ids=IDS)
    assert calls == 2 * [(6, 12), (3, 4), (3, 4)]


def test_a_global_threshold_is_computed_task_by_task():
    tasks, x = two_tasks("global").double(), images(6).double()
    with pytest.warns(UserWarning, match="one threshold for all layers of a task"):
        out = tasks(x, task_ids=IDS)
    close(out, alone(tasks, x, IDS))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", ["slice", "norm_only", "random_positions", "supermask"])
def test_gradients_reach_each_task(method, training):
    tasks, x = two_tasks(method).double().train(training), images(6).double()
    tasks.zero_grad()
    other = copy.deepcopy(tasks)
    tasks(x, task_ids=IDS).square().sum().backward()
    torch.stack(alone(other, x, IDS)).square().sum().backward()
    learned = [(a, b) for a, b in zip(tasks.parameters(), other.parameters(), strict=True)]
    assert any(one.grad is not None for one, _ in learned)
    for one, two in learned:
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-12)
    for one, two in zip(tasks.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two)


def test_heads_of_different_sizes():
    tasks, x = two_tasks("slice", "5").double(), images(6).double()
    tasks.add("c", head=nn.Linear(64, 7, dtype=torch.float64))
    ids = ["c", "a", "c", "b", "a", "b"]
    close(tasks.eval().rows(x, task_ids=ids), alone(tasks, x, ids))
    assert [len(row) for row in tasks.rows(x, task_ids=ids)] == [7, 5, 7, 5, 5, 5]
    with pytest.raises(ValueError, match=r"differ in size \({'a': \[5\], 'b': \[5\], 'c': \[7\]}"):
        tasks(x, task_ids=ids)
    with_softmax = Tasks(nn.Sequential(copy.deepcopy(tasks.model), nn.Softmax(1)), head="0.5")
    for name, size in (("a", 5), ("c", 7)):
        with_softmax.add(name, head=nn.Linear(64, size, dtype=torch.float64))
    ids = ["c", "a", "c", "a", "a", "a"]
    with pytest.warns(UserWarning, match="heads of different sizes"):
        rows = with_softmax.eval().rows(x, task_ids=ids)
    close(rows, alone(with_softmax, x, ids))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "make",
    [
        lambda: convert_(torchvision.models.resnet18(num_classes=5), learned=0.2),
        lambda: convert_(
            torchvision.models.mobilenet_v3_small(num_classes=5), learned=0.2, rest="learn"
        ),
        lambda: models.create("wrn_10_1", learned=0.2),
        lambda: models.create("densenet_bc_10_12", learned=0.2),
    ],
    ids=["resnet18", "mobilenet_v3_small", "wrn_10_1", "densenet_bc_10_12"],
)
def test_whole_networks(make):
    tasks = Tasks(make().double())
    for seed, name in enumerate("ab"):
        tasks.add(name, seed=seed)
        with torch.no_grad():
            tasks.train()(torch.randn(4, 3, 32, 32, dtype=torch.float64))
    x = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        close(tasks.eval()(x, task_ids=IDS), alone(tasks, x, IDS))


class Scaled(nn.Module):
    """Has a learned value of its own around layers with others, and several arguments."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x, more, factor=1):
        return (self.conv(x) * self.scale * factor + more[:, None, None, None]).mean((2, 3))


def test_nested_values_and_several_arguments():
    tasks = Tasks(convert_(nn.Sequential(Wrapped()).double(), learned=0.5))
    for seed, name in enumerate("ab"):
        tasks.add(name)
        for one in tasks.model.parameters():
            nn.init.normal_(one, seed)
    x, more = torch.randn(6, 3, 6, 6).double(), torch.randn(6).double()
    expected = {}
    for name in "ab":
        with tasks.using(name):
            expected[name] = tasks.eval()(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = tasks(x, task_ids=IDS)
    close(out, [expected[name][row] for row, name in enumerate(IDS)])
    inner = Tasks(convert_(Scaled().double(), learned=0.5))
    inner.add("a")
    inner.add("b")
    nn.init.normal_(inner.model.scale)
    expected = torch.stack([inner_row(inner, x, more, row, name) for row, name in enumerate(IDS)])
    with pytest.warns(UserWarning, match="the model takes several arguments"):
        close(inner.eval()(x, more, task_ids=IDS), expected)


def inner_row(tasks, x, more, row, name):
    with tasks.using(name):
        return tasks.eval()(x[row : row + 1], more[row : row + 1])[0]


class Wrapped(nn.Module):
    """A learned value around a layer that is converted."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return (self.conv(x) * self.scale).mean((2, 3))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (["a", "b"], ValueError, "task_ids has 2 entries; expected one for each of 6 rows"),
        (["a"] * 5 + ["c"], ValueError, "task_ids has 'c'; expected some of a, b"),
        ("abaaba", TypeError, "expected a name for each row"),
        (torch.tensor([0, 1, 2, 0, 0, 0]), ValueError, "task_ids has 2; expected 0 to 1"),
        (torch.zeros(6), TypeError, r"task_ids is \[6\] of torch\.float32; expected \[N\], int64"),
    ],
)
def test_wrong_task_ids(ids, error, message):
    with pytest.raises(error, match=message):
        two_tasks("slice", trained=False)(images(6), task_ids=ids)


@pytest.mark.parametrize("ids", [[], torch.tensor([], dtype=torch.int64)], ids=["names", "indices"])
def test_an_empty_batch(ids):
    tasks, x = two_tasks("slice"), images(0)
    assert tasks(x, task_ids=ids).shape == (0, 5)
    assert tasks.rows(x, task_ids=ids) == []
    assert tasks.active == "b"
    with pytest.raises(ValueError, match="task_ids has 1 entries; expected one for each of 0 rows"):
        tasks(x, task_ids=["a"])
    with pytest.raises(ValueError, match="there are no tasks"):
        Tasks(convert_(nn.Sequential(nn.Conv2d(3, 4, 3)), learned=1))(x, task_ids=ids)


def test_wrong_inputs_and_outputs():
    tasks = two_tasks("slice", trained=False)
    with pytest.raises(TypeError, match="expected a tensor"):
        tasks(task_ids=[])
    with pytest.raises(TypeError, match="factor is given with task_ids"):
        tasks(images(6), task_ids=IDS, factor=1)
    pooled = Tasks(nn.Sequential(copy.deepcopy(tasks.model), nn.Flatten(0)))
    pooled.add("a")
    with pytest.raises(TypeError, match=r"returns \[30\] for 6 rows of task 'a'"):
        pooled(images(6), task_ids=["a"] * 6)
