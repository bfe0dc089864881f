"""YellowFin's settings and state: after a reload, in copies, and of parameters in low precision."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from quadratics import noisy_quadratic
from torch import nn

from maskedconv import YellowFin
from maskedconv.optim.factory import make_optimizer

LOW_PRECISION = [torch.bfloat16, torch.float16]


def test_state_dict_goes_on_exactly():
    def make():
        point = nn.Parameter(torch.full((4,), 5.0))
        optimizer = YellowFin([point], 0.01, window=4, clip=2.0, weight_decay=1e-3)
        return point, optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [7], 0.1)

    def advance(point, optimizer, scheduler, steps):
        for step in steps:
            point.grad = noisy_quadratic(point, step)
            optimizer.step()
            scheduler.step()

    point, *rest = make()
    advance(point, *rest, range(10))
    file = io.BytesIO()
    torch.save([point.data, *(part.state_dict() for part in rest)], file)
    advance(point, *rest, range(10, 30))
    file.seek(0)
    data, *states = torch.load(file, weights_only=True)
    other, *others = make()
    other.data.copy_(data)
    for part, state in zip(others, states, strict=True):
        part.load_state_dict(state)
    advance(other, *others, range(10, 30))
    assert torch.equal(point, other)
    assert others[0].tuned == rest[0].tuned
    assert others[0].param_groups[0]["lr"] == pytest.approx(0.001)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=["deepcopy", "pickle"],
)
def test_copies_go_on_exactly(copied):
    point = nn.Parameter(torch.full((4,), 5.0))
    pair = point, YellowFin([point], 0.01, beta=0.9, window=4, clip=2.0)
    for step in range(20):
        if step == 10:
            other = copied(pair)
        for one, optimizer in (pair, other) if step >= 10 else (pair,):
            one.grad = noisy_quadratic(one, step)
            optimizer.step()
    assert torch.equal(point, other[0])
    assert pair[1].tuned == other[1].tuned


def test_yellowfin_has_the_authors_settings():
    parameter = nn.Parameter(torch.ones(1))
    settings = {"lr": 0.1, "momentum": 0.0, "weight_decay": 5e-4, "nesterov": False}
    optimizer = make_optimizer("yellowfin", [parameter], **settings)
    (group,) = optimizer.param_groups
    assert (group["clip"], group["window"], group["beta"]) == (2.0, 20, 0.999)
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.0, 5e-4)


def settings_of(optimizer):
    return [
        [group[name] for name in ("beta", "window", "clip")] for group in optimizer.param_groups
    ]


def test_a_state_dict_has_the_settings():
    mine, other = (YellowFin([nn.Parameter(torch.ones(2))], **kw) for kw in ({}, {"window": 7}))
    other.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.2})
    mine.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    mine.load_state_dict(other.state_dict())
    assert settings_of(mine) == settings_of(other) == [[0.999, 7, None]] * 2
    mine.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
    assert settings_of(mine) == [[0.999, 7, None]] * 3


def test_a_state_dict_of_an_earlier_version_leaves_the_settings():
    optimizer = YellowFin([nn.Parameter(torch.ones(2))], beta=0.9, window=4, clip=2.0)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    state = optimizer.state_dict()
    for name in ("beta", "window", "clip"):
        del state["param_groups"][0][name]
    optimizer.load_state_dict(state)
    assert settings_of(optimizer) == [[0.9, 4, 2.0]]
    optimizer.step()


def test_groups_with_settings_of_their_own_are_refused():
    groups = [{"params": [nn.Parameter(torch.ones(1))]} for _ in range(2)]
    groups[1]["window"] = 5
    with pytest.raises(ValueError, match="window of a parameter group is 5; expected 20"):
        YellowFin(groups)


def moved(optimizer, gradients):
    (parameter,) = optimizer.param_groups[0]["params"]
    for gradient in gradients:
        parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
    return optimizer.tuned


def falling_gradients(dtype):
    """Their mean falls, which an average must follow; all are exact in ``dtype``."""
    noise = 0.5 * torch.randn(120, 8, generator=torch.Generator().manual_seed(0))
    return (noise + (torch.arange(120) < 20)[:, None]).to(dtype).float()


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=["bfloat16", "float16"])
def test_low_precision_is_tuned_as_float32(dtype):
    gradients = falling_gradients(dtype)
    tuned = [
        moved(YellowFin([nn.Parameter(torch.zeros(8, dtype=kind))], 1e-4), gradients)
        for kind in (dtype, torch.float32)
    ]
    assert tuned[0] == tuned[1]


@pytest.mark.parametrize("dtype", LOW_PRECISION, ids=["bfloat16", "float16"])
def test_a_reload_keeps_the_digits_of_low_precision(dtype):
    gradients = falling_gradients(dtype)
    mine, other = (YellowFin([nn.Parameter(torch.zeros(8, dtype=dtype))], 1e-4) for _ in range(2))
    moved(mine, gradients[:60])
    other.load_state_dict(mine.state_dict())
    other = copy.deepcopy(other)
    assert moved(mine, gradients[60:]) == moved(other, gradients[60:])
    states = [optimizer.state_dict()["state"][0] for optimizer in (mine, other)]
    for name, value in states[0].items():
        assert value.dtype == torch.float32
        assert torch.equal(value, states[1][name])
