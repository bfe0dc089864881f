"""Learning rates by epoch."""

from __future__ import annotations

import math

import pytest
import torch

from maskedconv.optim import make_scheduler


def rates(schedule, milestones, warmup, epochs=8, resumed_at=None):
    """The learning rate of each epoch, 1 at most; a new schedule takes over at one of them."""

    def fresh():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        return optimizer, make_scheduler(schedule, optimizer, epochs, milestones, 0.1, warmup)

    optimizer, scheduler = fresh()
    found = []
    for epoch in range(epochs):
        if epoch == resumed_at:
            states = optimizer.state_dict(), scheduler.state_dict()
            optimizer, scheduler = fresh()
            optimizer.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
        assert scheduler.get_last_lr()[0] == optimizer.param_groups[0]["lr"]
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("warmup", [1, 3])
def test_warmup_multiplies_the_steps(warmup):
    plain = rates("step", (2, 6), 0)
    factors = [min(1.0, (epoch + 1) / (warmup + 1)) for epoch in range(len(plain))]
    expected = [rate * factor for rate, factor in zip(plain, factors, strict=True)]
    assert rates("step", (2, 6), warmup) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0, 1, 3, 8])
def test_a_cosine_begins_after_the_warmup(warmup):
    """``cosine_lr`` of the code of Ramanujan et al. (2019) does the same."""
    rise = [(epoch + 1) / warmup for epoch in range(warmup)]
    rest = 8 - warmup
    fall = [(1 + math.cos(math.pi * epoch / rest)) / 2 for epoch in range(rest)]
    assert rates("cosine", (), warmup) == pytest.approx(rise + fall)


@pytest.mark.parametrize("resumed_at", [1, 2, 3, 5])
@pytest.mark.parametrize(("schedule", "milestones"), [("step", (2, 6)), ("cosine", ())])
def test_a_resumed_schedule_goes_on(schedule, milestones, resumed_at):
    whole = rates(schedule, milestones, 3)
    assert rates(schedule, milestones, 3, resumed_at=resumed_at) == whole
