"""The backend cuda_wgmma: from Python to the kernel, and when it runs."""

from __future__ import annotations

from types import SimpleNamespace

import emulation
import pytest
import torch
from pretended_gpu import LIMITS
from test_cuda_emulation import TOLERANCE, error_of, make_meta_problem, make_problem
from test_wgmma_emulation import CASES, make_aligned_problem

from bench.gpu_check import plan, shapes
from maskedconv import env
from maskedconv.ops import native
from maskedconv.ops.dispatch import chosen_backend
from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.weight_grad import BACKENDS, OPERATOR, cuda_wgmma

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)


@pytest.fixture
def hopper(monkeypatch, pretended_gpu, emulated_module):
    """A GPU that is pretended, with a module that was built for it."""
    functions = {name: getattr(emulated_module, name) for name in dir(emulated_module)}
    functions["build_info"] = lambda: {"cuda_archs": "80 90 100"}
    monkeypatch.setattr(native, "module", lambda: SimpleNamespace(**functions))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    "name", ["3x3", "5x5", "1x1, 35 filters", "48 filters", "1x1, 192 channels"]
)
def test_from_python_to_the_kernel(emulated_module, name, batch):
    """Arguments of the backend, the bindings and the kernel fit together, twice in a row."""
    problem = make_aligned_problem((batch, *CASES[name][1:]), torch.bfloat16, True, view=8)
    sizes = problem.input.shape, problem.shape, *problem.geometry[:3]
    floats, counters = emulated_module.weight_grad_wgmma_workspace("bfloat16", *sizes, *LIMITS)
    assert counters <= LIMITS[0]
    assert (floats > 0) == (counters > 0)
    first, second = cuda_wgmma.run(problem), cuda_wgmma.run(problem)
    assert first.shape == problem.shape
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
    assert error_of(first, problem) < TOLERANCE


@pytest.mark.usefixtures("hopper")
def test_several_clusters(monkeypatch):
    """Several clusters need a workspace and counters, which start uninitialised."""
    properties = SimpleNamespace(multi_processor_count=5, shared_memory_per_block_optin=227 * 1024)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    problem = make_aligned_problem((30, 72, 5, (8, 8), *CASES["3x3"][4:]), torch.float16, True)
    for _ in range(2):
        assert error_of(cuda_wgmma.run(problem), problem) < TOLERANCE


def test_it_runs_only_where_it_is_named(monkeypatch):
    assert BACKENDS["cuda_wgmma"] is cuda_wgmma
    for device in ("cpu", "cuda"):
        assert "cuda_wgmma" not in OPERATOR.kernels_for(torch.device(device))
    problem = make_aligned_problem(CASES["3x3"], torch.bfloat16)
    assert chosen_backend(OPERATOR, problem) is not cuda_wgmma
    named = problem._replace(backend="cuda_wgmma")
    with pytest.raises(RuntimeError, match="'cuda_wgmma', which cannot run: "):
        chosen_backend(OPERATOR, named)
    monkeypatch.setattr(cuda_wgmma, "cannot_run", lambda _: "")
    assert chosen_backend(OPERATOR, named) is cuda_wgmma
    monkeypatch.setenv("MASKEDCONV_BACKEND", "cuda_wgmma")
    assert chosen_backend(OPERATOR, problem) is cuda_wgmma


def test_what_was_not_built(monkeypatch, emulated_module):
    problem = make_aligned_problem(CASES["3x3"], torch.bfloat16)
    monkeypatch.setattr(native, "module", lambda: SimpleNamespace())
    assert "without CUDA" in cuda_wgmma.cannot_run(problem)
    monkeypatch.setattr(native, "module", lambda: emulated_module)
    assert "without 90" in cuda_wgmma.cannot_run(problem)


@pytest.mark.usefixtures("hopper")
def test_the_environment_says_that_it_is_unconfirmed(monkeypatch):
    monkeypatch.setattr(env, "_cuda", lambda *_: "")
    information = {"isa_error": "none", "cuda_archs": "80 90 100"}
    module = SimpleNamespace(
        weight_grad_wgmma=None, build_info=lambda: information, __file__=__file__
    )
    monkeypatch.setattr(native, "module", lambda: module)
    assert "no GPU has confirmed it" in env._backends()["cuda_wgmma"]
    information["cuda_archs"] = "80"
    assert env._backends()["cuda_wgmma"] == "maskedconv._C was built for sm 80, without 90"


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"slice_dim": 1}, "not of dimension 1"),
        ({"geometry": ConvGeometry((1, 1), (1, 1), (1, 1), 2)}, "one group, not 2"),
        ({"geometry": ConvGeometry((1, 1), (60, 60), (60, 60), 1)}, "not fit into shared memory"),
        ({"input": torch.zeros(2, 40, 9, 7, dtype=torch.bfloat16)}, "channels_last"),
        ({"input": make_problem(CASES["3x3"], torch.bfloat16, pitch=3).input}, "16 bytes apart"),
        ({"grad_output": torch.zeros(2, 8, 9, 7)}, "the gradient torch.float32"),
        ({"shape": torch.Size((0, 40, 3, 3))}, "the problem is empty"),
        ({}, ""),
    ],
)
def test_reasons_on_a_gpu(monkeypatch, change, reason):
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0), raising=False)
    problem = make_aligned_problem(CASES["3x3"], torch.bfloat16)._replace(**change)
    answer = cuda_wgmma.cannot_run(problem)
    assert reason in answer
    assert bool(reason) == bool(answer)


@pytest.mark.usefixtures("hopper")
def test_other_gpus(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda", 0), raising=False)
    problem = make_aligned_problem(CASES["3x3"], torch.bfloat16)
    for capability in ((8, 0), (10, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert "compute capability 9.0" in cuda_wgmma.cannot_run(problem)


def test_it_takes_the_shapes_for_which_gpu_check_has_it(wgmma_library):
    named = {case for step in plan.steps(rehearse=False) for case in step.cases}
    emulated = emulation.WgmmaEmulation(wgmma_library, 132)
    for shape in {*shapes.NUMBERS, *shapes.TABLE}:
        side, pads = (shape.kernel,) * 2, (shape.padding,) * 2
        sizes = (shape.batch, shape.channels, shape.filters, (shape.size,) * 2)
        problem = make_meta_problem(
            (*sizes, side, (shape.stride,) * 2, pads, (1, 1)), torch.bfloat16
        )
        if f"{shape} | {plan.UNCONFIRMED}" in named:
            assert emulated.refusal(problem) == "", shape
        else:
            pixels = (shape.pitch or shape.channels) % 8, shape.out_channels % 8
            assert emulated.refusal(problem) or any(pixels) or shape.dtype != "bfloat16", shape


ARGUMENTS = {
    "type": "bfloat16", "x_shape": (2, 8, 5, 5), "shape": (3, 8, 3, 3), "stride": (1, 1),
    "padding": (1, 1), "dilation": (1, 1), "multiprocessors": 2, "shared_bytes": 160 * 1024,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "float64"}, "type is float64; expected float32, bfloat16 or float16"),
        ({"type": "float32"}, "it is for bfloat16 and float16"),
        ({"x_shape": (0, 8, 5, 5)}, "there is nothing to add up"),
        ({"stride": (2, 1)}, "it is for a stride of 1"),
        ({"shared_bytes": 10000}, "its tiles do not fit into shared memory"),
    ],
    ids=str,
)
def test_the_module_refuses(emulated_module, changes, message):
    workspace = emulated_module.weight_grad_wgmma_workspace
    assert workspace(*ARGUMENTS.values()) == (0, 0)
    with pytest.raises(ValueError, match=f"^weight_grad_wgmma_workspace: {message}"):
        workspace(*{**ARGUMENTS, **changes}.values())
