"""The peers that speed is compared with compute the same thing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.peers import IMPLEMENTATIONS


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("learned", [1, 3, 8, 15])
def test_peer_computes_the_same(implementation, learned):
    conv = nn.Conv2d(5, 16, 3, stride=2, padding=1, bias=False, dtype=torch.float64)
    plain = copy.deepcopy(conv)
    module = IMPLEMENTATIONS[implementation](conv, learned)
    x = torch.randn(2, 5, 9, 9, dtype=torch.float64)
    out, expected = module(x), plain(x)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    parameter = module.learned if hasattr(module, "learned") else module.weight
    torch.testing.assert_close(parameter.grad[:learned], plain.weight.grad[:learned])
    if implementation == "gradient mask":
        assert not parameter.grad[learned:].any()
