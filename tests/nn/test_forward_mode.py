"""torch.autograd.forward_ad: tangents are right, or a layer raises."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, jvp

from maskedconv.functional.binary import binary_sign
from maskedconv.nn import MaskedConv2d, SupermaskConv2d


def of_scores():
    layer = SupermaskConv2d(3, 4, 3, k=0.5)
    x = torch.randn(2, 3, 5, 5)
    return lambda scores: functional_call(layer, {"scores": scores}, (x,)), layer.scores


def of_sign():
    return binary_sign, torch.linspace(-2, 2, 9, requires_grad=True)


def tangent(compute, start):
    with forward_ad.dual_level():
        output = compute(forward_ad.make_dual(start, torch.ones_like(start)))
        return forward_ad.unpack_dual(output).tangent


@pytest.mark.parametrize("grad_mode", [False, True])
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("case", [of_scores, of_sign], ids=["scores", "binary_sign"])
def test_tangent(case, learns, grad_mode):
    compute, start = case()
    _, expected = jvp(compute, (start.detach(),), (torch.ones_like(start),))
    with torch.set_grad_enabled(grad_mode):
        found = tangent(compute, start if learns else start.detach())
    assert expected.count_nonzero()
    torch.testing.assert_close(found.detach(), expected)


def test_learned_filters():
    layer, x = MaskedConv2d(3, 4, 3, learned=2), torch.randn(2, 3, 5, 5)

    def compute(learned):
        return functional_call(layer, {"learned": learned}, (x,))

    start = layer.learned
    _, expected = jvp(compute, (start.detach(),), (torch.ones_like(start),))
    with torch.no_grad():
        torch.testing.assert_close(tangent(compute, start), expected)
    with pytest.raises(NotImplementedError, match="jvp"):
        tangent(compute, start)
