"""pytest-benchmark: the operator, the layer and complete training steps, with the peers.

``extra_info`` has the parameters and the minimum time of the device (``floor_ms``). Runs on CUDA if
there is a GPU, else on the CPU.
"""

from __future__ import annotations

import pytest
import torch

from bench import ceilings, masked_weights, steps
from bench.compare import forward_and_backward, weight_gradients
from bench.layers import CPU_LAYERS, GPU_LAYERS, tensors
from bench.peers import IMPLEMENTATIONS
from maskedconv.ops.weight_grad import BACKENDS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
LAYERS = GPU_LAYERS if DEVICE == "cuda" else CPU_LAYERS
OPERATORS = [*(name for name in BACKENDS if name != "reference"), "sliced backward", "all filters"]


@pytest.fixture(scope="session")
def best():
    return ceilings.measure(DEVICE, DTYPE)


@pytest.fixture(params=LAYERS, ids=str)
def layer(request):
    return request.param


def run(benchmark, function, rounds):
    def waited():
        function()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(waited, rounds=rounds, warmup_rounds=3)


def note(benchmark, layer, learned, floor_ms):
    benchmark.extra_info |= {
        **layer._asdict(),
        "learned": learned,
        "floor_ms": floor_ms,
        "device": DEVICE,
        "dtype": str(DTYPE),
        "threads": torch.get_num_threads(),
    }


@pytest.mark.parametrize("implementation", OPERATORS)
@pytest.mark.parametrize("learned", [1, "p = .1"])
def test_weight_gradient(benchmark, best, layer, learned, implementation):
    count = learned if isinstance(learned, int) else max(1, layer.out_channels // 10)
    x, grad = tensors(layer, DEVICE, DTYPE)
    functions = weight_gradients(layer, count, x, grad)
    if implementation not in functions:
        pytest.skip(f"{implementation} does not run here")
    floor = best.milliseconds(*ceilings.weight_gradient(layer, count, x.element_size()))
    benchmark.group = f"weight gradient, {layer}, learned {learned}"
    note(benchmark, layer, count, floor)
    run(benchmark, functions[implementation], 20)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_forward_and_backward(benchmark, best, layer, implementation):
    count = max(1, layer.out_channels // 10)
    x, grad = tensors(layer, DEVICE, DTYPE)
    function = forward_and_backward(layer, count, "random", x, grad)[implementation]
    benchmark.group = f"forward and backward, {layer}, p = .1"
    floor = best.milliseconds(*ceilings.step(layer, count, "random", x.element_size()))
    note(benchmark, layer, count, floor)
    run(benchmark, function, 20)


@pytest.mark.parametrize("implementation", ["maskedconv", "conv2d", "sliced backward"])
@pytest.mark.parametrize("network", steps.PLAIN)
def test_training_step(benchmark, network, implementation):
    setting = steps.Setting(network, 0.1, "random", DEVICE, DTYPE)
    benchmark.group = f"training step, {network}, p = .1, batch {steps.BATCH[DEVICE]}"
    benchmark.extra_info |= {
        "device": DEVICE,
        "parameters": steps.parameters(network, 0.1, "random"),
        "saved_bytes": steps.saved(implementation, setting),
    }
    run(benchmark, steps.training_step(implementation, setting), 3)


@pytest.mark.parametrize("implementation", ["maskedconv", "sort"])
@pytest.mark.parametrize("shape", masked_weights.SHAPES, ids=str)
def test_masked_weight(benchmark, shape, implementation):
    weight, score, _ = masked_weights.tensors(shape, DEVICE)
    benchmark.group = f"threshold and masked weight, {shape}"
    benchmark.extra_info |= {"device": DEVICE, "threads": torch.get_num_threads()}
    run(benchmark, masked_weights.forward(weight, score)[implementation], 5)
