"""The driver of bench.gpu_check, which launches the kernels without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import emulation
import numpy as np
import pytest
import torch

from bench.gpu_check import plan, shapes
from bench.gpu_check.problems import errors, exact, problem_of
from maskedconv.ops import native
from maskedconv.ops.weight_grad import BACKENDS

if native.module() is None:
    pytest.skip(native.REASON, allow_module_level=True)

from bench.gpu_check import driver, driver_mask, driver_norm

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("shape", shapes.SANITIZED, ids=str)
def test_the_kernel_for_the_cpu_is_right(shape):
    assert driver.launch(shape, driver.HostMemory(), check=True) <= driver.MARGIN


@pytest.mark.parametrize("shape", shapes.SANITIZED, ids=str)
def test_batch_norm_on_the_cpu_is_right(shape):
    assert driver_norm.launch(shape, driver.HostMemory(), check=True) <= driver.MARGIN


def test_a_wrong_batch_norm_is_seen(monkeypatch):
    shape = shapes.SANITIZED[0]
    right = driver_norm.exact
    for part in range(4):

        def wrong(*arguments, part=part):
            results = list(right(*arguments))
            results[part] = results[part] * 1.1
            return driver_norm.Results(*results)

        monkeypatch.setattr(driver_norm, "exact", wrong)
        assert driver_norm.launch(shape, driver.HostMemory(), check=True) > driver.MARGIN


@pytest.mark.parametrize("shape", shapes.SANITIZED, ids=str)
def test_masks_on_the_cpu_are_right(shape):
    assert driver.launch(shape, driver.HostMemory(), True, "masked_weight") <= driver.MARGIN


@pytest.mark.parametrize("part", range(4))
def test_a_wrong_mask_is_seen(monkeypatch, part):
    right = driver_mask.exact

    def wrong(*arguments):
        results = list(right(*arguments))
        results[part] = results[part] * 1.1
        return tuple(results)

    monkeypatch.setattr(driver_mask, "exact", wrong)
    assert driver_mask.launch(shapes.SANITIZED[0], driver.HostMemory(), True) > driver.MARGIN


class EmulatedMemory(driver.HostMemory):
    """Memory of a GPU that runs the emulation's kernels."""

    is_gpu = True

    def attribute(self, number):
        return {driver.MULTIPROCESSORS: 5, driver.SHARED_BYTES: 227 << 10}[number]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    return emulation.build_module(tmp_path_factory.mktemp("module"))


@pytest.mark.skipif(emulation.compiler() is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("kernel", plan.SANITIZED_KERNELS)
def test_every_kernel_on_an_emulated_gpu(kernel, emulated, monkeypatch):
    """The arguments are those of the sanitizer's cases."""
    for module in (driver, driver_mask, driver_norm):
        monkeypatch.setattr(module, "_C", emulated)
    unconfirmed = kernel == plan.UNCONFIRMED
    taken = [s for s in shapes.SANITIZED if not unconfirmed or plan.is_for_unconfirmed(s)]
    assert len(taken) >= 2
    for shape in taken:
        assert driver.launch(shape, EmulatedMemory(), True, kernel) <= driver.MARGIN, shape


def test_a_wrong_result_is_seen(monkeypatch):
    shape = shapes.SANITIZED[0]
    right = driver.exact
    monkeypatch.setattr(driver, "exact", lambda *arguments: right(*arguments) * 1.1)
    assert driver.launch(shape, driver.HostMemory(), check=True) > driver.MARGIN
    monkeypatch.setattr(driver, "_call_kernel", lambda *arguments: None)  # NaN stays in place
    assert driver.launch(shape, driver.HostMemory(), check=True) == np.inf


class NoMemory(driver.HostMemory):
    """Host pointers with the limits of a GPU, so that CUDA refuses a launch."""

    is_gpu = True

    def attribute(self, number):
        return {driver.MULTIPROCESSORS: 132, driver.SHARED_BYTES: 227 << 10}[number]


@pytest.mark.skipif(
    not hasattr(native.module(), "weight_grad_cuda") or torch.cuda.is_available(),
    reason="built without CUDA, or there is a GPU, which must not see the host's pointers",
)
@pytest.mark.parametrize("shape", shapes.SANITIZED, ids=str)
def test_the_launch_on_cuda_takes_these_arguments(shape):
    with pytest.raises(RuntimeError, match="weight_grad"):  # and no TypeError
        driver.launch(shape, NoMemory(), check=False)


def test_it_runs_without_torch():
    script = (
        "import sys; sys.argv += ['--host', '--check', '--shape', sys.argv.pop(1)];"
        "from bench.gpu_check import driver; code = driver.main();"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    shape = '{"channels": 8, "out_channels": 8, "size": 5, "kernel": 3, "filters": 2, "batch": 2}'
    done = subprocess.run(
        [sys.executable, "-c", script, shape], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "8->8@5 3x3 n2: off by" in done.stdout


@pytest.mark.parametrize("shape", [*shapes.SMALL, *shapes.SANITIZED], ids=str)
def test_the_float64_that_kernels_are_held_against(shape):
    """The float64 gradient of the step "numbers" equals autograd's."""
    problem = problem_of(shape, "cpu")
    input = problem.input.double()
    if problem.scale is not None:
        scale, shift = (part.double().view(-1, 1, 1) for part in (problem.scale, problem.shift))
        input = (input * scale + shift).relu().to(problem.input.dtype).double()
    expected = torch.nn.grad.conv2d_weight(
        input,
        problem.shape,
        problem.grad_output.double()[:, : shape.filters],
        *problem.geometry[:3],
    )
    # The activation is rounded to bfloat16 from float32 or float64, which rarely differs.
    torch.testing.assert_close(exact(problem), expected, rtol=1e-3, atol=1e-3)
    error = errors(BACKENDS["native"].run(problem), expected)
    assert error["mean"] <= error["largest"] < 0.02
