"""The peers of the speed comparison compute the same results."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.peers import IMPLEMENTATIONS, NarrowAndPad
from maskedconv import MaskedConv2d


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


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_peer_under_autocast(implementation):
    conv = nn.Conv2d(5, 16, 3, stride=2, padding=1, bias=False)
    module = IMPLEMENTATIONS[implementation](copy.deepcopy(conv), 3)
    x = torch.randn(2, 5, 9, 9)

    def grads(network):
        with torch.autocast("cpu", torch.bfloat16):
            out = network(x)
        out.float().square().sum().backward()
        parameter = network.learned if hasattr(network, "learned") else network.weight
        return out, parameter.grad

    (out, grad), (expected, expected_grad) = grads(module), grads(conv)
    assert out.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected, rtol=2**-7, atol=2**-7)
    assert grad.dtype == torch.float32
    scale = float(expected_grad.abs().max())
    torch.testing.assert_close(grad[:3], expected_grad[:3], rtol=0, atol=2**-5 * scale)


def test_the_peer_of_zeroed_filters():
    conv = nn.Conv2d(5, 16, 3, stride=2, padding=1, bias=False, dtype=torch.float64)
    ours = MaskedConv2d.from_conv2d(conv, learned=3, frozen="zero")
    peer, x = NarrowAndPad(conv, 3), torch.randn(2, 5, 9, 9, dtype=torch.float64)
    out, expected = peer(x), ours(x)
    assert torch.equal(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(peer.learned.grad, ours.learned.grad)
