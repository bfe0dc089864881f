"""On a GPU: the kernels and the layer against float64, determinism, autocast, compile, CUDA graphs.

Skipped if there is none; ``make gpu-check`` runs it.
"""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from network_problems import NETWORK_SHAPES, network_problem
from precision import assert_as_exact, rms_error
from strides import strided_copy
from test_weight_grad import SHAPES, expected_of, make_problem
from torch.nn import functional as F

from bench.plain_networks import plain_wrn
from maskedconv import MaskedConv2d, explain, merge_, models
from maskedconv.ops import dispatch, ranking_cache
from maskedconv.ops.pack_filters import BACKENDS as PACKERS
from maskedconv.ops.pack_filters import PackProblem
from maskedconv.ops.weight_grad import BACKENDS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

KERNELS = ("reference", "triton", "cuda", "matmul")
FORCED = KERNELS[:3]  # take every layer of a network


@pytest.fixture(autouse=True)
def _tf32(monkeypatch, tmp_path):
    """float32 problems go to tensor cores, as the kernels expect; choices start unmade."""
    monkeypatch.setenv("MASKEDCONV_CACHE_DIR", str(tmp_path))
    ranking_cache.cache_for.cache_clear()
    dispatch.forget_decisions()
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32")


def on_gpu(problem, device="cuda"):
    """The problem on the GPU, with tensors of the same strides."""
    moved = [strided_copy(t, device) if isinstance(t, torch.Tensor) else t for t in problem]
    return type(problem)(*moved)


def computed_in(dtype):
    """The dtype with the mantissa of the products: TF32 has ten bits, like float16."""
    return torch.float16 if dtype == torch.float32 else dtype


def run(backend, problem):
    if reason := BACKENDS[backend].cannot_run(problem):
        pytest.skip(f"{backend}: {reason}")
    return BACKENDS[backend].run(problem)


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "bn-relu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", KERNELS)
def test_weight_grad(backend, shape, dtype, prologue):
    for channels, filters in ((20, 5), (64, 1), (96, 16)):
        problem = make_problem(
            SHAPES[shape], channels, filters, (17, 19), 3, dtype=dtype, prologue=prologue
        )
        grad = run(backend, on_gpu(problem)).cpu()
        plain = BACKENDS["reference"].run(on_gpu(problem)).cpu()
        assert_as_exact([grad], [plain], [expected_of(problem)], shape, dtype=computed_in(dtype))


@pytest.mark.parametrize("prologue", [False, True], ids=["plain", "bn-relu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", NETWORK_SHAPES)
@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_weight_grad_in_the_networks(backend, name, dtype, prologue):
    problem = on_gpu(network_problem(name, dtype, prologue, batch=32))
    grad = run(backend, problem)
    plain = BACKENDS["reference"].run(problem)
    assert_as_exact([grad], [plain], [expected_of(problem)], name, dtype=computed_in(dtype))


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_two_runs_are_equal_to_the_bit(backend):
    problem = on_gpu(make_problem(SHAPES["3x3"], 160, 16, (32, 32), 32, dtype=torch.bfloat16))
    assert torch.equal(run(backend, problem), run(backend, problem))


def test_two_threads_launch_one_kernel_with_different_shared_memory():
    """It takes 53 KiB for 40 filters and 72 KiB for 64."""
    problems = [
        on_gpu(make_problem(SHAPES["3x3"], 64, filters, (16, 16), 8, dtype=torch.bfloat16))
        for filters in (40, 64)
    ]
    expected = [run("cuda", problem) for problem in problems]

    def run_often(problem):
        return [BACKENDS["cuda"].run(problem) for _ in range(500)][-1]

    with ThreadPoolExecutor(2) as threads:
        for found, right in zip(threads.map(run_often, problems), expected, strict=True):
            assert torch.equal(found, right)


def test_cuda_wgmma_is_the_first_work_of_a_thread():
    problem = on_gpu(make_problem(SHAPES["3x3"], 64, 5, (16, 16), 8, dtype=torch.bfloat16))
    # The allocator keeps the memory of this result, and asks CUDA for none in the thread.
    expected = run("cuda_wgmma", problem).cpu()
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(BACKENDS["cuda_wgmma"].run, problem).result()
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("slice_dim", range(4))
@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_pack_filters(backend, slice_dim, memory_format, dtype):
    whole = torch.randn(9, 7, 3, 3, device="cuda")
    parts = whole.narrow(slice_dim, 0, 2), whole.narrow(slice_dim, 2, whole.size(slice_dim) - 2)
    problem = PackProblem(*parts, slice_dim, dtype, memory_format)
    if reason := PACKERS[backend].cannot_run(problem):
        pytest.skip(f"{backend}: {reason}")
    assert torch.equal(PACKERS[backend].run(problem), whole.to(dtype))


@pytest.mark.parametrize("backend", FORCED)
def test_training_moves_the_learned_filters_alone(backend, monkeypatch):
    monkeypatch.setenv("MASKEDCONV_BACKEND", backend)
    layer = MaskedConv2d(32, 48, 3, padding=1, learned=6, bias=False, seed=0).cuda()
    layer = layer.to(memory_format=torch.channels_last)
    start = copy.deepcopy(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(100):
        x = torch.randn(4, 32, 16, 16, device="cuda").to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            out = layer(x)
        out.float().square().mean().backward()
        optimizer.step()
    assert torch.equal(layer.frozen.view(torch.int32), start.frozen.view(torch.int32))
    assert not torch.equal(layer.learned, start.learned)


def test_the_default_is_checked_and_timed(monkeypatch, recwarn):
    monkeypatch.delenv("MASKEDCONV_BACKEND", raising=False)
    layer = MaskedConv2d(64, 64, 3, padding=1, learned=6, device="cuda", dtype=torch.bfloat16)
    layer = layer.to(memory_format=torch.channels_last)
    x = torch.randn(16, 64, 32, 32, device="cuda", dtype=torch.bfloat16)
    choices = explain(layer, x.to(memory_format=torch.channels_last))
    assert {choice.operator for choice in choices} == {"pack_filters", "weight_grad"}
    assert all("the fastest when timed" in choice.reason for choice in choices)
    assert not [str(warning.message) for warning in recwarn if "kernel" in str(warning.message)]


def wrn(device="cuda", batch=32):
    """The network, its images and their labels."""
    model = models.create("wrn_10_2", learned=0.1, seed=0).to(device)
    x = torch.randn(batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), device=device)
    return model.to(memory_format=torch.channels_last), x, labels


def training_step(forward, x, labels):
    """In bfloat16, unless the images are in float64."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.dtype != torch.float64):
        loss = F.cross_entropy(forward(x), labels)
    loss.backward()


def gradients(model):
    """Copies of the gradients, by name."""
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def gradients_by_plain_modules(model, x, labels, dtype):
    """Gradients that ``model`` is to have after a step, computed by PyTorch's modules."""
    plain = merge_(copy.deepcopy(model)).to(dtype)
    plain.zero_grad()
    training_step(partial(plain_wrn, plain), x.to(dtype), labels)
    whole = gradients(plain)
    return {
        name: whole[name.replace(".learned", ".weight")][: len(parameter)]
        for name, parameter in model.named_parameters()
    }


def assert_gradients_as_exact(runs):
    """Of each run: gradients of the network, of plain modules, and of these in float64."""
    for name in runs[0][0]:
        results = ([run[i][name] for run in runs] for i in range(3))
        assert_as_exact(*results, name, measure=rms_error, dtype=torch.bfloat16)


def test_a_compiled_training_step():
    model, *_ = wrn()
    compiled, runs = torch.compile(model, fullgraph=True), []
    for seed in range(3):
        torch.manual_seed(seed)
        _, x, labels = wrn()
        others = (
            gradients_by_plain_modules(model, x, labels, dtype)
            for dtype in (torch.float32, torch.float64)
        )
        model.zero_grad()
        training_step(compiled, x, labels)
        runs.append((gradients(model), *others))
    assert_gradients_as_exact(runs)


@pytest.fixture
def _repeating():
    """PyTorch's algorithms repeat to the bit, as the kernels do."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_repeating")
@pytest.mark.parametrize("backend", FORCED)
def test_a_captured_training_step(backend, monkeypatch):
    monkeypatch.setenv("MASKEDCONV_BACKEND", backend)
    model, x, labels = wrn()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model.zero_grad(set_to_none=True)
            training_step(model, x, labels)
    torch.cuda.current_stream().wait_stream(side)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        training_step(model, x, labels)
    graph.replay()
    captured = gradients(model)
    model.zero_grad(set_to_none=True)
    training_step(model, x, labels)
    for name, grad in gradients(model).items():
        assert torch.equal(captured[name], grad), name
