"""The CUDA backends from Python to the kernel, which the emulation runs on the CPU."""

from __future__ import annotations

import contextlib
import functools
from itertools import product
from types import SimpleNamespace

import emulation
import pytest
import torch
from exact import edge_views
from pretended_gpu import LIMITS
from test_cuda_emulation import CASES, TOLERANCE, error_of, make_problem

from maskedconv import env
from maskedconv.ops import native
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.pack_filters import cuda as pack_filters_cuda
from maskedconv.ops.pack_filters.problem import PackProblem
from maskedconv.ops.weight_grad import cuda as weight_grad_cuda
from maskedconv.ops.weight_grad import cuda_wgmma

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("name", ["3x3", "all differ"])
@pytest.mark.parametrize("batch", [1, 40])
def test_weight_grad_from_python_to_the_kernel(emulated_module, name, batch):
    """Arguments of the backend, the bindings and the kernel fit together."""
    case = (batch, *CASES[name][1:3], (8, 7), *CASES[name][4:])  # an image is a tile
    problem = make_problem(case, torch.bfloat16, prologue=True, pitch=3)
    sizes = problem.input.shape, problem.shape, *problem.geometry[:3]
    splits = emulated_module.weight_grad_cuda_splits("bfloat16", *sizes, *LIMITS)
    assert (splits > 1) == (batch > 1)
    result = weight_grad_cuda.run(problem)
    assert result.shape == problem.shape
    assert result.dtype == torch.float32
    assert error_of(result, problem) < TOLERANCE


@pytest.mark.usefixtures("pretended_gpu")
def test_pack_filters_from_python_to_the_kernel():
    learned, frozen = torch.randn(2, 3, 5, 5), torch.randn(6, 3, 5, 5)
    problem = PackProblem(learned, frozen, 0, torch.float16, torch.channels_last)
    packed = pack_filters_cuda.run(problem)
    assert packed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(packed, torch.cat((learned, frozen)).half())


@pytest.mark.usefixtures("pretended_gpu")
def test_pack_filters_does_not_take_what_32_bits_cannot_count(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0), raising=False)
    few = torch.randn(2, 3, 5, 5)
    for learned in (few, few[:1].expand(2**23, 3, 5, 5)):
        problem = PackProblem(learned, few, 0, torch.float16, torch.channels_last)
        assert ("32 bits" in pack_filters_cuda.cannot_run(problem)) == (learned is not few)


PACKED = torch.zeros(4096)
AT, HUGE = PACKED.data_ptr(), 2**62
PACK_ARGUMENTS = {
    "out": AT, "out_strides": (12, 4, 2, 1), "out_type": "float32",
    "learned": AT + 4096, "learned_strides": (12, 4, 2, 1),
    "frozen": AT + 8192, "frozen_strides": (12, 4, 2, 1),
    "shape": (5, 3, 2, 2), "num_learned": 2, "slice_dim": 0, "stream": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_type": "float64"}, "type is float64; expected float32, bfloat16 or float16"),
        ({"slice_dim": 4}, "slice_dim is 4; expected 0 to 3"),
        ({"slice_dim": -1}, "slice_dim is -1; expected 0 to 3"),
        ({"num_learned": 6}, "num_learned is 6; expected 0 to 5"),
        ({"num_learned": -1}, "num_learned is -1"),
        ({"out": 0}, "out is a null pointer; expected 60 elements"),
        ({"learned": 0}, "learned is a null pointer; expected 24 elements"),
        ({"frozen": 0}, "frozen is a null pointer; expected 36 elements"),
        ({"shape": (5, -3, 2, 2)}, "out has a size of -3"),
        ({"shape": (5, HUGE, 2, 2)}, "out is larger than memory"),
        ({"learned_strides": (12, 4, -2, 1)}, "learned has a stride of -2"),
        ({"frozen_strides": (HUGE, 4, 2, 1)}, "frozen is larger than memory"),
    ],
    ids=str,
)
def test_pack_filters_refuses(emulated_module, changes, message):
    pack_filters = emulated_module.pack_filters_cuda
    pack_filters(*PACK_ARGUMENTS.values())
    with pytest.raises(ValueError, match=f"^pack_filters_cuda: {message}"):
        pack_filters(*{**PACK_ARGUMENTS, **changes}.values())


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize("slice_dim", range(4))
def test_pack_filters_of_edge_shapes(slice_dim):
    for shape in product((0, 1, 2), repeat=4):
        for whole, count in product(edge_views(*shape), range(shape[slice_dim] + 1)):
            learned = whole.narrow(slice_dim, 0, count)
            frozen = whole.narrow(slice_dim, count, shape[slice_dim] - count)
            problem = PackProblem(learned, frozen, slice_dim, torch.bfloat16, torch.channels_last)
            assert torch.equal(pack_filters_cuda.run(problem), whole.bfloat16())


SPLITS_ARGUMENTS = {
    "type": "float16", "x_shape": (2, 4, 5, 5), "shape": (3, 4, 3, 3), "stride": (1, 1),
    "padding": (1, 1), "dilation": (1, 1), "multiprocessors": 2, "shared_bytes": 160 * 1024,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "float64"}, "type is float64; expected float32, bfloat16 or float16"),
        ({"x_shape": (0, 4, 5, 5)}, "there is nothing to add up"),
        ({"shape": (0, 4, 3, 3)}, "there is nothing to add up"),
        ({"shape": (3, 4, 8, 3)}, "there is nothing to add up"),
        ({"shape": (3, 5, 3, 3)}, "the filters' number of channels is 5; expected 4"),
        ({"stride": (0, 1)}, "stride is 0"),
    ],
    ids=str,
)
def test_the_module_refuses(emulated_module, changes, message):
    splits = emulated_module.weight_grad_cuda_splits
    assert splits(*SPLITS_ARGUMENTS.values()) > 0
    with pytest.raises(ValueError, match=f"^weight_grad_cuda_splits: {message}"):
        splits(*{**SPLITS_ARGUMENTS, **changes}.values())


def test_what_the_cuda_backend_does_not_take(monkeypatch, emulated_module):
    problem = make_problem(CASES["3x3"], torch.bfloat16)
    monkeypatch.setattr(native, "module", lambda: SimpleNamespace())
    assert "without CUDA" in weight_grad_cuda.cannot_run(problem)
    monkeypatch.setattr(native, "module", lambda: emulated_module)
    assert "the input is on cpu" in weight_grad_cuda.cannot_run(problem)


@pytest.mark.usefixtures("pretended_gpu")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"slice_dim": 1}, "not of dimension 1"),
        ({"geometry": ConvGeometry((1, 1), (1, 1), (1, 1), 2)}, "one group, not 2"),
        ({"geometry": ConvGeometry((1, 1), (80, 80), (80, 80), 1)}, "not fit into shared memory"),
        ({"input": torch.zeros(2, 40, 9, 7, dtype=torch.bfloat16)}, "channels_last"),
        ({"grad_output": torch.zeros(2, 8, 9, 7)}, "the gradient torch.float32"),
        ({"shape": torch.Size((0, 40, 3, 3))}, "the problem is empty"),
        ({}, ""),
    ],
)
def test_reasons_on_a_gpu(monkeypatch, change, reason):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0), raising=False)
    problem = make_problem(CASES["3x3"], torch.bfloat16)._replace(**change)
    answer = weight_grad_cuda.cannot_run(problem)
    assert reason in answer
    assert bool(reason) == bool(answer)


def pretend(monkeypatch, archs, capability, error=""):
    """A GPU of the capability, and a module that was built for ``archs``.

    Returns:
        A list with an element for each time that the driver was asked, which answers ``error``.
    """
    asked = []
    module = SimpleNamespace(
        build_info=lambda: {"cuda_archs": archs}, pack_filters_cuda=None,
        weight_grad_wgmma=None, pack_filters_cuda_error=lambda: asked.append(archs) or error,
    )  # fmt: skip
    monkeypatch.setattr(native, "module", lambda: module)
    monkeypatch.setattr(
        native, "why_no_code_for", functools.cache(native.why_no_code_for.__wrapped__)
    )
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0), raising=False)
    return asked


@pytest.mark.parametrize(
    ("archs", "capability", "expected"),
    [
        ("80 90 100", (8, 0), True),
        ("80 90 100", (8, 9), True),
        ("80 90 100", (7, 5), False),
        ("80 90 100", (12, 0), True),  # by the PTX of the last one
        ("90", (8, 0), False),
        ("90", (9, 0), True),
        ("90", (10, 0), True),
        ("86", (8, 0), False),
        ("90a", (9, 0), True),
        ("90a", (10, 0), False),
    ],
)
def test_gpus_that_run_what_was_built(monkeypatch, archs, capability, expected):
    assert native.has_code_for(archs, capability) is expected
    pretend(monkeypatch, archs, capability)
    filters = torch.randn(2, 3, 5, 5)
    problem = PackProblem(filters, filters, 0, torch.float16, torch.channels_last)
    reason = pack_filters_cuda.cannot_run(problem)
    named = f"was built for sm {archs}; cuda:0 has compute capability "
    assert (named in reason, reason == "") == (not expected, expected)


@pytest.mark.parametrize(
    "error",
    [
        "",
        "CUDA driver version is insufficient for CUDA runtime version",
        "the provided PTX was compiled with an unsupported toolchain.",
    ],
)
def test_a_driver_that_refuses_the_kernels(monkeypatch, error):
    """Each backend says so, and the driver is asked once."""
    asked = pretend(monkeypatch, "80 90", (9, 0), error)
    filters = torch.randn(2, 3, 5, 5)
    problem = PackProblem(filters, filters, 0, torch.float16, torch.channels_last)
    reason = f"CUDA does not load the kernels of maskedconv._C on cuda:0: {error}" if error else ""
    for _ in range(2):
        assert pack_filters_cuda.cannot_run(problem) == reason
    products = make_problem(CASES["3x3"], torch.bfloat16)
    if error:
        assert cuda_wgmma.cannot_run(products) == reason
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert env._cuda("80 90", {}) == f"built for sm 80 90; {reason or env.NOT_RUN}"
    assert len(asked) == 1


def test_nothing_refuses_emulated_kernels(emulated_module):
    assert emulated_module.pack_filters_cuda_error() == ""
