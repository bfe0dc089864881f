"""torch.func.vmap and grad take layers of every method."""

from __future__ import annotations

import pytest
import torch
from test_summary import METHODS, network
from torch.func import functional_call, grad, vmap

from maskedconv import convert_


@pytest.mark.parametrize("name", METHODS)
def test_members_under_vmap(name):
    model, x = convert_(network(), method=METHODS[name], seed=0).double(), torch.randn(2, 3, 6, 6)
    x = x.double()
    model(x)  # BatchNorm has statistics
    model.eval()
    learned = {key: p.detach() for key, p in model.named_parameters()}
    members = [learned, {key: 0.5 * p + 0.01 for key, p in learned.items()}]
    stacked = {key: torch.stack([one[key] for one in members]) for key in learned}

    def loss(values):
        return functional_call(model, values, (x,)).square().sum()

    losses, gradients = vmap(loss)(stacked), vmap(grad(loss))(stacked)
    for index, one in enumerate(members):
        leaves = {key: value.clone().requires_grad_() for key, value in one.items()}
        expected = loss(leaves)
        torch.testing.assert_close(losses[index], expected)
        for key, value in zip(
            leaves, torch.autograd.grad(expected, list(leaves.values())), strict=True
        ):
            torch.testing.assert_close(gradients[key][index], value)
