"""The native weight gradient sums in blocks, so that its rounding errors stay small."""

from __future__ import annotations

import pytest
import torch

from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad import BACKENDS, WeightGradProblem

# channels, learned filters, size of the input, kernel, stride, padding, batch; each selects another
# algorithm of the kernel, and all have thousands of pixels
LAYERS = {
    "by taps": (16, 5, 32, 3, 1, 1, 8),
    "by taps, strided": (20, 5, 31, 3, 2, 1, 16),
    "by taps, parts of an image": (160, 2, 40, 3, 1, 1, 3),
    "small channels": (3, 5, 32, 3, 1, 1, 8),
    "small channels, one image": (3, 5, 100, 3, 1, 1, 1),
    "rows interleaved": (3, 14, 33, 7, 2, 3, 16),
    "1x1": (64, 20, 32, 1, 1, 0, 8),
    "one column": (64, 1, 32, 1, 1, 0, 8),
    "small maps": (64, 5, 2, 3, 1, 1, 1500),
    "single pixels": (32, 5, 1, 1, 1, 0, 6000),
}
KINDS = {
    "constant": lambda *shape: torch.full(shape, 0.3),
    "random": torch.randn,
    "positive": torch.rand,
    "far from zero": lambda *shape: torch.randn(shape) + 3,
}
# Length of a chain of additions: at most 256 in a register, 64 of their results and of partial
# blocks in a float, and a few at the end. Each errs by at most half a unit in the last place.
MOST_RELATIVE = (256 + 2 * 64 + 16) * 2**-24


DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def make_problem(layer, kind, dtype):
    channels, filters, size, kernel, stride, padding, batch = layer
    output = (size + 2 * padding - kernel) // stride + 1
    x, grad = KINDS[kind](batch, channels, size, size), KINDS[kind](batch, filters, output, output)
    return WeightGradProblem(
        x.to(dtype).contiguous(memory_format=torch.channels_last),
        grad.to(dtype).contiguous(memory_format=torch.channels_last),
        torch.Size((filters, channels, kernel, kernel)), 0,
        ConvGeometry((stride, stride), (padding, padding), (1, 1), 1),
    )  # fmt: skip


def pytorchs(problem, dtype):
    """Computed by PyTorch in ``dtype``; in float64."""
    stride, padding, dilation, _ = problem.geometry
    input, grad = problem.input.to(dtype), problem.grad_output.to(dtype)
    return torch.nn.grad.conv2d_weight(
        input, problem.shape, grad, stride, padding, dilation
    ).double()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", LAYERS)
def test_errs_by_at_most_twice_what_pytorch_does_in_float32(layer, kind, dtype):
    problem = make_problem(LAYERS[layer], kind, dtype)
    if reason := BACKENDS["native"].cannot_run(problem):
        pytest.skip(reason)
    exact = pytorchs(problem, torch.float64)
    error = (BACKENDS["native"].run(problem).double() - exact).norm()
    assert error <= 2 * (pytorchs(problem, torch.float32) - exact).norm() + 1e-7 * exact.norm()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_no_chain_of_additions_is_long(layer, dtype):
    """Products of one sign, so that the bound is relative to the result itself."""
    problem = make_problem(LAYERS[layer], "constant", dtype)
    if reason := BACKENDS["native"].cannot_run(problem):
        pytest.skip(reason)
    exact = pytorchs(problem, torch.float64)
    error = (BACKENDS["native"].run(problem).double() - exact).abs() / exact
    assert error.max() <= MOST_RELATIVE
