"""weight_grad of 1x1 filters as a matrix product: what it takes, and that it copies nothing."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from exact import assert_same, exact_weight_grad, poisoned_problems
from network_problems import NETWORK_SHAPES, network_problem
from precision import assert_as_exact
from test_weight_grad import SHAPES, expected_of, make_problem
from torch.utils._python_dispatch import TorchDispatchMode

from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad import BACKENDS, OPERATOR, matmul

POINTWISE = [name for name, (kind, *_) in NETWORK_SHAPES.items() if kind == "1x1"]


class Recorded(TorchDispatchMode):
    """The names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", POINTWISE)
def test_layers_of_the_networks_are_one_product(name, dtype):
    problem = network_problem(name, dtype, prologue=False, batch=1)
    assert matmul.cannot_run(problem) == ""
    with Recorded() as recorded:
        grad = matmul.run(problem)
    assert recorded.names == ["mm"]
    assert grad.shape == problem.shape
    assert grad.is_contiguous(memory_format=torch.channels_last)
    plain = expected_of(problem, dtype)
    assert_as_exact([grad], [plain], [expected_of(problem)], name, dtype=dtype)


@pytest.mark.parametrize("filters", [1, 2, 9, 40])
@pytest.mark.parametrize("channels", [1, 2, 17])
def test_any_number_of_filters_and_channels(channels, filters):
    for size, batch in product(((5, 7), (1, 1), (1, 6)), (1, 3)):
        problem = make_problem(SHAPES["1x1"], channels, filters, size, batch)
        assert matmul.cannot_run(problem) == ""
        plain = expected_of(problem, torch.float32)
        assert_as_exact([matmul.run(problem)], [plain], [expected_of(problem)])


@pytest.mark.parametrize(
    ("size", "stride", "taken"),
    [((8, 1), (2, 1), True), ((1, 8), (1, 2), True), ((7, 1), (2, 1), False),
     ((8, 8), (2, 2), False), ((8, 8), (2, 1), False)],
)  # fmt: skip
def test_a_stride_whose_pixels_are_at_equal_distances(size, stride, taken):
    problem = make_problem(((1, 1), stride, (0, 0), (1, 1)), 6, 3, size)
    assert (matmul.cannot_run(problem) == "") == taken
    if taken:
        plain = expected_of(problem, torch.float32)
        assert_as_exact([matmul.run(problem)], [plain], [expected_of(problem)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_not_finite(dtype):
    """A value that is not finite affects only the elements with it as a factor."""
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    for problem in poisoned_problems(make_problem(SHAPES["1x1"], 6, 3, (4, 5), dtype=dtype)):
        assert_same(matmul.run(problem).double(), exact_weight_grad(problem), tolerance)


@pytest.mark.parametrize(
    ("shape", "change", "reason"),
    [
        ("1x1", {}, ""),
        ("3x3", {}, "for 1x1 filters without padding, not 3x3"),
        ("3x3 unpadded", {}, "for 1x1 filters"),
        ("1x1", {"geometry": ConvGeometry((1, 1), (1, 0), (1, 1), 1)}, "with (1, 0)"),
        ("1x1", {"geometry": ConvGeometry((1, 1), (0, 0), (1, 1), 2)}, "one group, not 2"),
        ("1x1", {"slice_dim": 1}, "not of dimension 1"),
        ("1x1", {"scale": torch.ones(6), "shift": torch.ones(6)}, "BatchNorm and ReLU"),
        ("1x1", {"input": torch.zeros(2, 6, 4, 5)}, "channels_last"),
        ("1x1", {"grad_output": torch.zeros(2, 6, 4, 5)}, "not at equal distances"),
        ("1x1", {"grad_output": torch.zeros(2, 6, 4, 5).half()}, "the gradient torch.float16"),
        ("1x1", {"input": torch.zeros(0, 6, 4, 5)}, "the problem is empty"),
    ],
)
def test_what_it_does_not_take(shape, change, reason):
    problem = make_problem(SHAPES[shape], 6, 3, (4, 5))._replace(**change)
    found = matmul.cannot_run(problem)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.fixture
def precisions():
    """Precisions of float32 in convolutions and matrix products, which the test may change."""
    both = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [of.fp32_precision for of in both]
    yield both
    for of, value in zip(both, before, strict=True):
        of.fp32_precision = value


@pytest.mark.parametrize(
    ("convolution", "products", "refused"),
    [("tf32", "tf32", False), ("ieee", "ieee", False), ("ieee", "tf32", True)],
)
def test_float32_is_not_rounded_more_than_the_convolution_may(
    monkeypatch, precisions, convolution, products, refused
):
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    precisions[0].fp32_precision, precisions[1].fp32_precision = convolution, products
    problem = make_problem(SHAPES["1x1"], 6, 3, (4, 5))
    assert ("forbids" in matmul.cannot_run(problem)) == refused
    half = make_problem(SHAPES["1x1"], 6, 3, (4, 5), dtype=torch.bfloat16)
    assert matmul.cannot_run(half) == ""


def test_only_a_gpu_chooses_it_and_not_a_deterministic_one():
    assert BACKENDS["matmul"] is matmul
    assert "matmul" not in OPERATOR.kernels_for(torch.device("cpu"))
    assert "matmul" in OPERATOR.kernels_for(torch.device("cuda"))
    assert not matmul.DETERMINISTIC
