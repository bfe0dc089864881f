"""Models that are run task by task, as they cannot be run by layer for a batch of several."""

from __future__ import annotations

import warnings

import pytest
import torch
from mixed_batches import IDS, alone, close
from task_networks import images, two_tasks
from torch import nn
from torch.nn import functional as F

from maskedconv import Tasks, convert_, models


class Frames(nn.Module):
    """Runs a convolution on the frames of each sample, ``[N, T, C, H, W]``."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, clips):
        return torch.stack([self.conv(clip).mean((0, 2, 3)) for clip in clips])


class ReadsWeight(nn.Module):
    """Reads a layer's weight besides calling it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3)) + F.conv2d(x, self.conv.weight).mean((2, 3))


class Unused(nn.Module):
    """Has a layer that evaluation does not call."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3))


class BatchStatistics(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8, affine=False, track_running_stats=False)

    def forward(self, x):
        return self.bn(self.conv(x)).flatten(1)


@pytest.mark.parametrize(
    ("model", "shape", "reason"),
    [
        (Frames, (6, 6, 3, 6, 6), r"conv takes \[6, 3, 6, 6\] for a batch of 7 rows"),
        (ReadsWeight, (6, 3, 6, 6), "NoneType"),
        (Unused, (6, 3, 6, 6), "other is not called"),
        (BatchStatistics, (6, 3, 6, 6), "bn normalises with the statistics of the batch"),
    ],
)
@pytest.mark.parametrize("equal", [True, False])
def test_models_that_are_run_task_by_task(model, shape, reason, equal):
    tasks, x = Tasks(convert_(model().double(), learned=0.5)), torch.randn(shape).double()
    for seed, name in enumerate("ab"):
        tasks.add(name, seed=None if equal else seed)
    tasks.eval()
    with pytest.warns(UserWarning, match=reason):
        close(tasks(x, task_ids=IDS), alone(tasks, x, IDS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(tasks(x, task_ids=IDS), alone(tasks, x, IDS))


@pytest.mark.filterwarnings("error")
def test_an_error_of_the_input_is_not_the_models():
    tasks, calls = two_tasks("slice", trained=False), []
    with pytest.raises(ValueError, match="input"):
        tasks(torch.randn(6, 4, 6, 6), task_ids=IDS)
    assert tasks.active == "b"
    tasks(images(6), task_ids=IDS)
    tasks.model.register_forward_hook(lambda *_: calls.append(1))
    tasks(images(6), task_ids=IDS)
    assert calls == [1]


@pytest.mark.filterwarnings("error")
def test_too_little_memory_is_not_remembered(monkeypatch):
    tasks, x = two_tasks("slice"), images(6)
    expected = tasks(x, task_ids=IDS)
    calls = []

    def fail(*_):
        calls.append(1)
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr("maskedconv.tasks.mixed.ByLayer.run", fail)
        for _ in range(2):
            torch.testing.assert_close(tasks(x, task_ids=IDS), expected)
    assert calls == [1, 1]


class MixesRows(nn.Module):
    def __init__(self, share=1.0):
        super().__init__()
        self.conv, self.share = nn.Conv2d(3, 8, 3, bias=False), share

    def forward(self, x):
        x = self.conv(x)
        return (x - self.share * x.mean(0, keepdim=True)).flatten(1)


@pytest.mark.parametrize("share", [1.0, 0.01])
@pytest.mark.parametrize("equal_rows_first", [True, False])
def test_a_model_that_mixes_rows(equal_rows_first, share):
    tasks, x = Tasks(convert_(MixesRows(share), learned=0.5)), torch.randn(6, 3, 6, 6)
    for seed, name in enumerate("ab"):
        tasks.add(name, seed=seed)
    tasks.eval()
    if equal_rows_first:
        tasks(torch.zeros(6, 3, 6, 6), task_ids=IDS)
    with pytest.warns(UserWarning, match="rows of task 'a' give other values") as record:
        out = tasks(x, task_ids=IDS)
    assert record[0].filename == __file__
    close(out, alone(tasks, x, IDS))


@pytest.mark.parametrize("sizes", [(4, 4), (4, 5)])
def test_outputs_that_are_equal_do_not_show_that_rows_are_not_mixed(sizes):
    tasks, x = (
        Tasks(nn.Sequential(MixesRows(), nn.Linear(128, 4)), head="1"),
        torch.randn(6, 3, 6, 6),
    )
    for name, size in zip("ab", sizes, strict=True):
        tasks.add(name, head=nn.Linear(128, size))
        nn.init.zeros_(tasks.model[1].weight)
        nn.init.constant_(tasks.model[1].bias, 1)
    tasks.eval()
    tasks.rows(x, task_ids=IDS)
    for name in "ab":
        tasks.set(name)
        nn.init.normal_(tasks.model[1].weight)
    with pytest.warns(UserWarning, match="give other values"):
        tasks.rows(x, task_ids=IDS)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("autocast", [True, False])
def test_rounding_is_no_disagreement(dtype, autocast):
    tasks = Tasks(models.create("wrn_10_1", learned=0.2, seed=0))
    for seed, name in enumerate("ab"):
        tasks.add(name, seed=seed)
    tasks.to(torch.float32 if autocast else dtype).eval()
    x = torch.randn(6, 3, 32, 32).to(torch.float32 if autocast else dtype)
    kind = torch.bfloat16 if dtype == torch.float32 else dtype
    with torch.autocast("cpu", dtype=kind, enabled=autocast), torch.no_grad():
        tasks(x, task_ids=IDS)
