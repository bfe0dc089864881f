"""Forward and backward of one layer at p = .1, beside the peers (pytest-benchmark)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.peers import IMPLEMENTATIONS

# in, out, image size, kernel, batch
LAYERS = {
    "64->64 @32": (64, 64, 32, 3, 16),
    "128->128 @16": (128, 128, 16, 3, 16),
    "256->256 @8": (256, 256, 8, 3, 16),
    "160->160 @32": (160, 160, 32, 3, 8),
    "204->48 @32 1x1": (204, 48, 32, 1, 16),
    "48->12 @32": (48, 12, 32, 3, 16),
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("layer", LAYERS)
def test_forward_and_backward(benchmark, layer, implementation):
    in_channels, out_channels, size, kernel, batch = LAYERS[layer]
    torch.manual_seed(0)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    conv = conv.to(memory_format=torch.channels_last)
    module = IMPLEMENTATIONS[implementation](conv, max(1, out_channels // 10))
    x = torch.randn(batch, in_channels, size, size).to(memory_format=torch.channels_last)
    x.requires_grad_()
    grad = torch.randn_like(module(x))

    def step():
        x.grad = None
        module.zero_grad()
        module(x).backward(grad)

    benchmark.group = f"{layer}, p = .1"
    pixels = batch * size * size
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark.extra_info["forward_gflop"] = (
        2e-9 * pixels * in_channels * out_channels * kernel * kernel
    )
    benchmark.pedantic(step, rounds=20, warmup_rounds=3)
