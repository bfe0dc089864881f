"""The grids of all launches for large inputs: no GPU takes more than 65535 blocks except in the
first dimension.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import SimpleNamespace

import emulation
import pytest
import torch

from maskedconv.ops import triton_runtime
from maskedconv.ops.bn_relu import Normalisation, NormProblem
from maskedconv.ops.bn_relu import cuda as bn_relu_cuda
from maskedconv.ops.bn_relu import triton as bn_relu
from maskedconv.ops.bn_statistics import StatisticsProblem
from maskedconv.ops.bn_statistics import triton as bn_statistics
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.masked_weight import MaskProblem, ScoreGradProblem, Threshold, ThresholdProblem
from maskedconv.ops.masked_weight import triton as masked_weight
from maskedconv.ops.pack_filters import PackProblem
from maskedconv.ops.pack_filters import triton as pack_filters
from maskedconv.ops.weight_grad import WeightGradProblem
from maskedconv.ops.weight_grad import triton as weight_grad

MOST = (2**31 - 1, 65535, 65535)
IMAGES = [(256, 64, 112, 112), (4096, 16, 32, 32), (8, 65536, 4, 4), (2, 2**20 - 16, 1, 1)]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def images(shape):
    return torch.empty(shape, dtype=torch.bfloat16, device="meta").to(
        memory_format=torch.channels_last
    )


def norm_problem(shape):
    channels, input = shape[1], images(shape)
    affine = [torch.empty(channels, device="meta") for _ in range(2)]
    statistics = torch.empty(5, channels, device="meta")
    norm = Normalisation(*affine, statistics, 1e-5, True)
    return NormProblem(input, norm, grad=images(shape))


@pytest.fixture
def grids(monkeypatch):
    """The grids of Triton's launches, which are recorded and not carried out."""
    found = []

    class Recorded:
        def __getitem__(self, grid):
            found.append(grid)
            return lambda *arguments, **options: None

    for operator in ("bn_relu", "bn_statistics", "masked_weight", "pack_filters", "weight_grad"):
        for name in ("triton_kernels", "triton_finish"):
            path = f"maskedconv.ops.{operator}.{name}"
            if importlib.util.find_spec(path) is None:
                continue
            module = importlib.import_module(path)
            for kernel in [key for key in vars(module) if key.endswith("_kernel")]:
                monkeypatch.setattr(module, kernel, Recorded())
    monkeypatch.setattr(triton_runtime, "cannot_launch", lambda device: "")
    monkeypatch.setattr(weight_grad, "_processors", lambda device: 132)
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.device("meta"))
    yield found
    assert found
    for grid in found:
        blocks = (*grid, 1, 1)[:3]
        assert all(0 < count <= most for count, most in zip(blocks, MOST, strict=True)), grid


@needs_triton
@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_bn_relu(grids, shape):
    problem = norm_problem(shape)
    assert bn_relu.cannot_run(problem) == ""
    bn_relu.run(problem)
    bn_relu.run_backward(problem, problem.grad, (True, True, True))
    bn_statistics.run(StatisticsProblem(problem.input, None, None, 1e-5))
    assert len(grids) == 6


@needs_triton
@pytest.mark.parametrize(
    ("shape", "filters", "kernel"),
    [((256, 64, 112, 112), 64, 3), ((4, 65536, 8, 8), 4, 1), ((4, 16, 32, 32), 20000, 5)],
)
def test_weight_grad(grids, shape, filters, kernel):
    problem = weight_problem(shape, filters, kernel)
    assert weight_grad.cannot_run(problem) == ""
    weight_grad.run(problem)
    assert len(grids) == 2


def weight_problem(shape, filters, kernel):
    batch, channels, *size = shape
    geometry = ConvGeometry((1, 1), (kernel // 2,) * 2, (1, 1), 1)
    return WeightGradProblem(
        images(shape), images((batch, filters, *size)),
        torch.Size((filters, channels, kernel, kernel)), 0, geometry,
    )  # fmt: skip


@needs_triton
def test_other_operators(grids):
    weight, score = torch.empty(2, 2048, 2048, 3, 3, device="meta")
    threshold = Threshold(
        torch.empty((), device="meta"), torch.empty((), dtype=torch.int64, device="meta")
    )
    masked_weight.find_threshold(ThresholdProblem(score, 1000))
    masked_weight.masked_weight(MaskProblem(weight, score, threshold, True, 1.0, torch.float32))
    masked_weight.score_grad(ScoreGradProblem(*[weight] * 3, False, 1.0, torch.float32))
    pack_filters.run(PackProblem(weight, score, 0, torch.bfloat16, torch.channels_last))
    assert len(grids) > 6


@needs_triton
def test_more_blocks_than_a_grid_has_are_refused(monkeypatch):
    monkeypatch.setattr(triton_runtime, "cannot_launch", lambda device: "")
    assert "channels has more blocks" in bn_relu.cannot_take(images((2, 2**22, 1, 1)))
    many = weight_problem((1, 8, 4, 4), 65536 * 64, 1)
    assert "more than a launch has blocks for" in weight_grad.cannot_run(many)


@pytest.fixture
def launched(emulated_module):
    """The module whose launches are counted only; a grid that is too large is an error."""
    emulated_module.take_launches()
    emulated_module.count_launches_only(True)
    yield emulated_module
    emulated_module.take_launches()
    emulated_module.count_launches_only(False)


needs_compiler = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)


@needs_compiler
@pytest.mark.parametrize("shape", [*IMAGES[:3], (32768, 16, 64, 63)], ids=str)
def test_compiled_bn_relu(launched, shape):
    pixels, channels = shape[0] * shape[2] * shape[3], shape[1]
    image, rows, at = (64, channels), (64, channels), 64
    size = ("bfloat16", pixels, channels)
    launched.bn_relu_cuda(*size, image, rows, image, 132, 0)
    launched.bn_statistics_cuda(
        *size, image, [(0, 0)] * 2, [0] * 5, 0.1, 1e-5, rows, at, at, 132, 0
    )
    launched.bn_relu_backward_cuda(
        *size, image, (128, channels), rows, True, (256, channels), (0, 0), at, at, at, at, at,
        132, 0,
    )  # fmt: skip
    assert len(launched.take_launches()) == 4


@needs_compiler
def test_steps_past_the_last_pixel_are_within_32_bits(launched):
    most = bn_relu_cuda._MOST_PIXELS
    assert launched.bn_relu_cuda_workspace(most, 16, 132)[0] > 0
    with pytest.raises(ValueError, match="pixels is 2130706433; expected 1 to 2130706432"):
        launched.bn_relu_cuda_workspace(most + 1, 16, 132)
    with pytest.raises(ValueError, match="multiprocessors is 8193; expected 1 to 8192"):
        launched.bn_relu_cuda_workspace(most, 16, 8193)


def test_so_many_pixels_are_refused_before(monkeypatch):
    monkeypatch.setattr(bn_relu_cuda.native, "module", lambda: SimpleNamespace(bn_relu_cuda=None))
    monkeypatch.setattr(bn_relu_cuda.native, "why_no_code_for", lambda _: "")
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0), raising=False)
    most = bn_relu_cuda._MOST_PIXELS
    assert bn_relu_cuda.cannot_take(images((most // 2**12, 1, 2**6, 2**6))) == ""
    assert "at most" in bn_relu_cuda.cannot_take(images((most // 2**12 + 1, 1, 2**6, 2**6)))


@needs_compiler
@pytest.mark.parametrize(("filters", "fits"), [(20000, True), (2**27, False)])
def test_compiled_weight_grad(launched, filters, fits):
    sizes = (4, 16, 32, 32), (filters, 16, 5, 5), (1, 1), (2, 2), (1, 1)
    splits = launched.weight_grad_cuda_splits("bfloat16", *sizes, 132, 232448)
    assert (splits > 0) == fits
    if not fits:
        with pytest.raises(ValueError, match="do not fit into a grid"):
            launched.weight_grad_wgmma_workspace("bfloat16", *sizes, 132, 232448)
