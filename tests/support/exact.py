"""The weight gradient of exactly the existing products, in float64; a strict comparison; and
problems with one value that is not finite.
"""

from __future__ import annotations

from itertools import product

import torch

NAN, INF = float("nan"), float("inf")
VALUES = (NAN, INF, -INF)


def poisoned(tensor, index, value):
    """A copy with the same strides and one changed element."""
    copy = tensor.clone(memory_format=torch.preserve_format)
    copy[index] = value
    return copy


def poisoned_problems(problem):
    """Problems with one in a corner or at another border of the input or of a learned gradient."""
    for value, name in product(VALUES, ("input", "grad_output")):
        tensor = getattr(problem, name)
        rows, columns = tensor.shape[2:]
        channel = min(1, problem.shape[1 if name == "input" else 0] - 1)
        for row, column in ((0, 0), (rows // 2, columns - 1)):
            yield problem._replace(**{name: poisoned(tensor, (-1, channel, row, column), value)})
    if problem.scale is not None:
        yield problem._replace(scale=poisoned(problem.scale, 0, NAN))
        yield problem._replace(shift=poisoned(problem.shift, 0, INF))


def edge_views(*shape):
    """Tensors ``[N, C, H, W]`` with all kinds of strides."""
    n, c, h, w = shape
    yield torch.randn(shape)
    yield torch.randn(n, h, w, c).permute(0, 3, 1, 2)
    yield torch.randn(n, h, w, c + 3).permute(0, 3, 1, 2)[:, :c]
    yield torch.randn(n, w, h, c).permute(0, 3, 2, 1)
    yield torch.randn(1, 1, 1, c).permute(0, 3, 1, 2).expand(shape)
    yield torch.randn(n, h, 2 * w, c).permute(0, 3, 1, 2)[..., ::2]


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
    """The gradient without products of padding, so that 0 times infinity does not occur."""
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
    """Asserts equal NaN and infinities, and other elements within ``relative`` of the largest
    finite value."""
    finite = expected[expected.isfinite()].abs()
    scale = max(1.0, float(finite.max())) if finite.numel() else 1.0
    torch.testing.assert_close(
        value.double(), expected, rtol=0, atol=relative * scale, equal_nan=True
    )
