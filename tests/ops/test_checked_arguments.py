"""The compiled module refuses invalid arguments and accepts valid edge shapes."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from exact import assert_same, edge_views, exact_weight_grad

from maskedconv.ops import native
from maskedconv.ops.bn_relu import BACKENDS as BN_RELU
from maskedconv.ops.bn_relu import Normalisation, NormProblem
from maskedconv.ops.bn_statistics import BACKENDS as STATISTICS
from maskedconv.ops.bn_statistics import RunningStatistics, StatisticsProblem
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad import BACKENDS as WEIGHT_GRAD
from maskedconv.ops.weight_grad import WeightGradProblem

pytestmark = pytest.mark.skipif(native.module() is None, reason=native.REASON)

FLOATS = torch.zeros(4096)
AT = FLOATS.data_ptr()
HUGE = 2**62


def refused(name, arguments, changes, message):
    """Calls with ``changes`` to otherwise valid arguments."""
    call = getattr(native.module(), name)
    call(*arguments.values())
    assert not changes.keys() - arguments.keys()
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        call(*{**arguments, **changes}.values())


WEIGHT_GRAD_ARGUMENTS = {
    "type": "float32", "x": AT, "x_shape": (2, 4, 5, 5), "x_strides": (100, 1, 20, 4),
    "grad": AT, "grad_shape": (2, 6, 5, 5), "grad_strides": (150, 1, 30, 6),
    "shape": (3, 4, 3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1),
    "scale": AT, "shift": AT, "out": AT + 8192, "threads": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "float64"}, "type is float64; expected float32, bfloat16 or float16"),
        ({"x": 0}, "x is a null pointer; expected 200 elements"),
        ({"grad": 0}, "grad is a null pointer; expected 300 elements"),
        ({"out": 0}, "out is a null pointer; expected 108 elements"),
        ({"shift": 0}, "shift is a null pointer"),
        ({"scale": 0}, "scale is a null pointer"),
        ({"x_shape": (-2, 4, 5, 5)}, "a size of x is -2"),
        ({"x_shape": (HUGE, 4, 5, 5)}, "a size of x is 4611686018427387904"),
        ({"x_shape": (2, 5, 5, 5)}, "the filters' number of channels is 4; expected 5"),
        ({"x_strides": (100, 25, 5, 1)}, "the channels of x lie 25 elements apart"),
        ({"x_strides": (-100, 1, 20, 4)}, "x has a stride of -100"),
        ({"x_strides": (HUGE, 1, HUGE, HUGE)}, "x is larger than memory"),
        ({"grad_strides": (150, -1, 30, 6)}, "grad has a stride of -1"),
        ({"grad_shape": (1, 6, 5, 5)}, "the number of images of grad is 1; expected 2"),
        ({"grad_shape": (2, 2, 5, 5)}, "the number of channels of grad is 2; expected 3 to"),
        ({"grad_shape": (2, 6, 6, 5)}, "the number of rows of grad is 6; expected 5"),
        ({"grad_shape": (2, 6, 5, 4)}, "the number of columns of grad is 4; expected 5"),
        ({"grad_shape": (2, 6, 5, -1)}, "grad has a size of -1"),
        ({"shape": (3, 4, 0, 3)}, "a size of the filters is 0; expected 1"),
        ({"shape": (-3, 4, 3, 3)}, "a size of the filters is -3"),
        ({"shape": (3, 4, 8, 3)}, "the number of rows of grad is 5; expected 0"),
        ({"stride": (0, 1)}, "stride is 0; expected 1"),
        ({"padding": (1, -1)}, "padding is -1; expected 0"),
        ({"dilation": (0, 1)}, "dilation is 0; expected 1"),
        ({"threads": 0}, "threads is 0; expected 1"),
    ],
    ids=str,
)
def test_weight_grad_refuses(changes, message):
    refused("weight_grad", WEIGHT_GRAD_ARGUMENTS, changes, message)


ALL = (True, True, True)
PIXELS = {
    "type": "float32",
    "x": AT,
    "x_pixel": 8,
    "pixels": 20,
    "channels": 5,
    "scale": AT,
    "shift": AT,
}
RUN = {**PIXELS, "out": AT + 8192, "threads": 1}
BACKWARD = {
    **PIXELS, "grad": AT, "mean": AT, "inverse_deviation": AT, "of_batch": True,
    "grad_x": AT + 8192, "grad_x_pixel": 5, "added": AT + 8192, "added_pixel": 5,
    "grad_weight": AT + 4096, "grad_bias": AT + 6144, "threads": 1,
}  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), [("bn_relu", RUN), ("bn_relu_backward", BACKWARD)])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "float64"}, "type is float64; expected float32, bfloat16 or float16"),
        ({"x": 0}, "x is a null pointer; expected 100 elements"),
        ({"scale": 0}, "scale is a null pointer; expected 5 elements"),
        ({"shift": 0}, "shift is a null pointer; expected 5 elements"),
        ({"x_pixel": 4}, "x_pixel is 4; expected at least 5"),
        ({"x_pixel": HUGE}, "x is larger than memory"),
        ({"pixels": -1}, "x has a size of -1"),
        ({"channels": -5}, "channels is -5; expected 0"),
        ({"threads": 0}, "threads is 0; expected 1"),
    ],
    ids=str,
)
def test_bn_relu_refuses(name, arguments, changes, message):
    refused(name, arguments, changes, message)


@pytest.mark.parametrize("name", ["grad", "mean", "inverse_deviation"])
def test_the_backward_of_bn_relu_refuses(name):
    refused("bn_relu_backward", BACKWARD, {name: 0}, f"{name} is a null pointer")
    refused("bn_relu", RUN, {"out": 0}, "out is a null pointer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grad_x_pixel": HUGE}, "grad_x is larger than memory"),
        ({"added": BACKWARD["grad"]}, "added is the gradient itself; expected another tensor"),
        ({"grad_x_pixel": 4}, "grad_x_pixel is 4; expected at least 5"),
        ({"added_pixel": 4}, "added_pixel is 4; expected at least 5"),
        ({"added_pixel": HUGE}, "added is larger than memory"),
    ],
)
def test_the_backward_of_bn_relu_refuses_a_gradient(changes, message):
    refused("bn_relu_backward", BACKWARD, changes, message)


SIZES = list(product((0, 1), (0, 1, 2), (0, 1), (0, 1, 2), (0, 1)))  # N, H, W, C and n


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("kernel", "padding"), [((1, 1), 0), ((2, 3), 1)], ids=str)
def test_weight_grad_of_edge_shapes(kernel, padding, dtype):
    """The backend computes every problem that it accepts; the reference computes the others."""
    backend, taken, limit = WEIGHT_GRAD["native"], 0, max(1e-5, 3 * torch.finfo(dtype).eps)
    for (batch, rows, columns, channels, filters), prologue in product(SIZES, (False, True)):
        output = [n + 2 * padding - k + 1 for n, k in zip((rows, columns), kernel, strict=True)]
        if min(output) < 0:
            continue
        affine = torch.randn(2, channels).unbind() if prologue else (None, None)
        geometry = ConvGeometry((1, 1), (padding, padding), (1, 1), 1)
        shape = torch.Size((filters, channels, *kernel))
        for x, grad in zip(
            edge_views(batch, channels, rows, columns),
            edge_views(batch, filters + 1, *output),
            strict=True,
        ):
            problem = WeightGradProblem(x.to(dtype), grad.to(dtype), shape, 0, geometry, *affine)
            expected = exact_weight_grad(problem)
            assert_same(WEIGHT_GRAD["reference"].run(problem), expected, limit)
            if not backend.cannot_run(problem):
                taken += 1
                assert_same(backend.run(problem), expected, limit)
    assert taken > 20


def test_the_kernel_of_weight_grad_takes_nothing_to_add_up():
    """This includes problems that the backend leaves to the reference."""
    for empty in ("batch", "channels", "filters", "rows"):
        sizes = {"batch": 2, "channels": 4, "filters": 3, "rows": 5, empty: 0}
        rows = sizes["rows"]
        out = torch.full((sizes["filters"], 3, 3, sizes["channels"]), torch.nan)
        native.module().weight_grad(*{
            **WEIGHT_GRAD_ARGUMENTS,
            "x_shape": (sizes["batch"], sizes["channels"], rows, 5),
            "x_strides": (1, 77, 1, 1) if empty != "filters" else (100, 1, 20, 4),
            "grad_shape": (sizes["batch"], 6, rows, 5),
            "shape": (sizes["filters"], sizes["channels"], 3, 3), "out": out.data_ptr(),
        }.values())  # fmt: skip
        assert torch.equal(out, torch.zeros_like(out))


@pytest.mark.parametrize("name", ["native", "triton"])
def test_a_batch_norm_of_other_channels(name):
    if name == "triton":
        pytest.importorskip("triton")
    check_batch_norm_of_other_channels(name)


def check_batch_norm_of_other_channels(name):
    """Backends of the operators refuse them, also if they run on the CPU for a test."""
    moments = torch.zeros(3), torch.ones(3)
    norm = Normalisation.of_moments(None, None, moments, 1e-3, False)
    x = torch.randn(2, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    message = r"a BatchNorm's numbers have the shape \[([25], )?3\].*; expected \[([25], )?4\]"
    with pytest.raises(ValueError, match=message):
        BN_RELU[name].run(NormProblem(x, norm))
    with pytest.raises(ValueError, match=message):
        BN_RELU[name].run_backward(NormProblem(x, norm), x, ALL)
    problem = WeightGradProblem(
        x, x, torch.Size((2, 4, 1, 1)), 0, ConvGeometry((1, 1), (0, 0), (1, 1), 1),
        *norm.scale_shift(),
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        WEIGHT_GRAD[name].run(problem)
    for rows in (4, 6):
        other = norm._replace(statistics=torch.zeros(rows, 4))
        with pytest.raises(ValueError, match=rf"the shape \[{rows}, 4\].*; expected \[5, 4\]"):
            BN_RELU[name].run(NormProblem(x, other))
    batches = torch.tensor(7)
    problem = StatisticsProblem(x, None, None, 0.1, RunningStatistics(None, None, batches, None))
    for changed in (
        {"weight": torch.ones(3)},
        {"bias": torch.ones(3)},
        {"out": torch.empty(5, 3)},
        {"moments": torch.stack(moments)},
    ):
        if (name, *changed) != ("native", "moments"):  # PyTorch copies these, and refuses them
            with pytest.raises(ValueError, match=message):
                STATISTICS[name].run(problem._replace(**changed))
    assert batches == 7


def test_bn_relu_of_edge_shapes():
    taken = 0
    for shape in product((0, 1, 2), repeat=4):
        channels = shape[1]
        weight, bias, *moments = torch.rand(4, channels).unbind()
        norm = Normalisation.of_moments(weight, bias, moments, 1e-3, False)
        for x, grad in zip(edge_views(*shape), edge_views(*shape), strict=True):
            problem = NormProblem(x, norm)
            results = [
                (
                    backend.run(problem),
                    *backend.run_backward(problem, grad, ALL),
                )
                for backend in BN_RELU.values()
                if not backend.cannot_run(problem)
            ]
            taken += len(results) - 1
            for expected, *others in zip(*results, strict=True):
                for value in others:
                    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    assert taken > 50
