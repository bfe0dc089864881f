"""Models and names that tasks refuse."""

from __future__ import annotations

import pytest
from task_networks import network, two_tasks
from torch import nn

from maskedconv import Tasks, convert_, methods


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
