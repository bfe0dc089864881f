"""Fused models that are compiled, as a whole or in part, before or after."""

from __future__ import annotations

import pytest
import torch
from fused_passes import run_pass
from torch import nn

from maskedconv import fuse_

IMAGES = torch.randn(2, 3, 12, 12, dtype=torch.float64)


@pytest.mark.parametrize("compiled", ["part", "model"])
@pytest.mark.parametrize("fused_first", [True, False])
def test_a_compiled_model_or_part(fused_first, compiled):
    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    model = nn.Sequential(block, nn.Conv2d(8, 4, 3), nn.Sigmoid()).double()
    plain = run_pass(model, IMAGES)
    if fused_first:
        fuse_(model, IMAGES)
    (block if compiled == "part" else model).compile(backend="aot_eager")
    if not fused_first:
        fuse_(model, IMAGES)
    for _ in range(2):
        found = run_pass(model, IMAGES)
        torch.testing.assert_close(found.output, plain.output)
        torch.testing.assert_close(found.gradients, plain.gradients)


@pytest.mark.filterwarnings("ignore:fuse_ left alone the model")
def test_the_result_of_torch_compile():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    plain = run_pass(model.double(), IMAGES)
    compiled = torch.compile(model, backend="eager")
    fuse_(compiled, IMAGES)
    torch.testing.assert_close(run_pass(compiled, IMAGES).output, plain.output)
