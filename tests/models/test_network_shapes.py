"""The CPU backends at the shapes of the networks: dense inputs, and prefixes of wider ones."""

from __future__ import annotations

import pytest
import torch
from network_problems import NETWORK_SHAPES, network_problem
from precision import assert_as_exact
from test_weight_grad import expected_of

from maskedconv.ops.weight_grad import BACKENDS


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "bn-relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NETWORK_SHAPES)
def test_native(name, dtype, prologue):
    problem = network_problem(name, dtype, prologue, batch=1)
    if reason := BACKENDS["native"].cannot_run(problem):
        pytest.skip(reason)
    grads = [BACKENDS[backend].run(problem) for backend in ("native", "reference")]
    assert_as_exact(grads[:1], grads[1:], [expected_of(problem)], name, dtype=dtype)


def test_the_problems_have_the_pitches_of_the_networks():
    """The GPU tests rely on these shapes, which are the only ones with the widest copies."""
    view = network_problem("DenseNet 1x1, of a block", torch.bfloat16, True, batch=2)
    assert view.input.stride() == (216 * 32 * 32, 1, 216 * 32, 216)
    assert view.grad_output.stride(3) % 8 == 0
    dense = network_problem("WRN-28-10 @8", torch.bfloat16, False, batch=2).input
    assert dense.is_contiguous(memory_format=torch.channels_last)
