"""The weight gradient of exactly the products that there are, in float64; a strict comparison."""

from __future__ import annotations

from itertools import product

import torch


def _met(output, size, tap, stride, padding, dilation):
    """Output positions whose input position for a tap is inside, and these input positions."""
    pairs = [(o, o * stride + tap * dilation - padding) for o in range(output)]
    inside = [(o, i) for o, i in pairs if 0 <= i < size]
    return [o for o, _ in inside], [i for _, i in inside]


def activation_of(problem):
    """The convolution's input, in float64."""
    input = problem.input.double()
    if problem.scale is None:
        return input
    scale, shift = (part.double().view(-1, 1, 1) for part in (problem.scale, problem.shift))
    return (input * scale + shift).relu()


def exact_weight_grad(problem):
    """Padding is no factor here, so that 0 times what is not finite does not appear."""
    x, filters = activation_of(problem), problem.shape[0]
    grad = problem.grad_output[:, :filters].double()
    result = torch.zeros(problem.shape, dtype=torch.float64)
    stride, padding, dilation, _ = problem.geometry
    for tap in product(*(range(size) for size in problem.shape[2:])):
        (rows, x_rows), (columns, x_columns) = (
            _met(grad.size(2 + i), x.size(2 + i), tap[i], stride[i], padding[i], dilation[i])
            for i in range(2)
        )
        result[:, :, tap[0], tap[1]] = torch.einsum(
            "nohw,nchw->oc", grad[:, :, rows][..., columns], x[:, :, x_rows][..., x_columns]
        )
    return result


def assert_same(value, expected, relative):
    """NaN where that is expected, the same infinities, and the rest within ``relative`` of the
    largest finite value."""
    finite = expected[expected.isfinite()].abs()
    scale = max(1.0, float(finite.max())) if finite.numel() else 1.0
    torch.testing.assert_close(
        value.double(), expected, rtol=0, atol=relative * scale, equal_nan=True
    )
