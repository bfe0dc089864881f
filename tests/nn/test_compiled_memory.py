"""Compiled networks keep what eager ones do, or as little as activation_memory_budget asks for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._functorch import config

from bench.saved_bytes import of_network, saved_bytes
from maskedconv import models

NAMES = ["wrn_10_1", "densenet_bc_16_12"]


def network_and_images(name, dtype=torch.float32, **options):
    network = models.create(name, learned=0.3, seed=0, **options).to(
        dtype, memory_format=torch.channels_last
    )
    images = torch.randn(4, 3, 16, 16, dtype=dtype)
    return network, images.to(memory_format=torch.channels_last)


def compiled(network):
    torch.compiler.reset()
    return torch.compile(network, fullgraph=True, backend="aot_eager_decomp_partition")


@pytest.mark.parametrize("slice_dim", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_network_keeps_no_more(name, slice_dim):
    network, images = network_and_images(name, slice_dim=slice_dim)
    eager = of_network(network, images, lambda network, x: network(x))
    whole = compiled(network)
    # Inductor keeps the logits' softmax, and statistics in separate tensors.
    assert of_network(network, images, lambda _, x: whole(x)) <= 1.05 * eager


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_is_kept_and_changes_no_gradient(name):
    network, images = network_and_images(name, torch.float64)
    other, kept, results = copy.deepcopy(network), [], []
    for model, budget in ((network, 1.0), (other, 0.3)):
        with config.patch(activation_memory_budget=budget):
            run, out = compiled(model), []
            own = [*model.parameters(), *model.buffers()]
            kept.append(saved_bytes(lambda run=run, out=out: out.append(run(images)), own))
            out[0].square().sum().backward()
        results.append([out[0].detach(), *(p.grad for p in model.parameters()), *model.buffers()])
    assert kept[1] < 0.5 * kept[0]
    torch.testing.assert_close(*results, check_stride=False)
