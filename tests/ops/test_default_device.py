"""Tensors that the package makes are on the device that they are meant for.

Under ``with torch.device("meta")`` or ``torch.set_default_device("cuda")``, a call of PyTorch
without a device makes them there.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

import maskedconv
from maskedconv.nn import MaskedConv2d, SupermaskConv2d, bn_relu
from maskedconv.nn.drawing import draw_learned_
from maskedconv.nn.rerandomise import rerandomise_

FOLDER = Path(maskedconv.__file__).parent
FACTORIES = {
    "arange", "as_tensor", "empty", "empty_strided", "eye", "full", "linspace", "logspace",
    "normal", "ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "tensor",
    "tril_indices", "triu_indices", "zeros",
}  # fmt: skip


@pytest.mark.parametrize("part", ["checkpoint", "functional", "methods", "nn", "ops"])
def test_every_new_tensor_names_its_device(part):
    without = []
    for path in sorted((FOLDER / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                module, _, name = ast.unparse(node.func).rpartition(".")
                named = any(keyword.arg == "device" for keyword in node.keywords)
                if module == "torch" and name in FACTORIES and not named:
                    without.append(f"{path.name}:{node.lineno}")
    assert not without


def bn_relu_of(images):
    norm = nn.BatchNorm2d(4, device="cpu")
    return [bn_relu(images, norm), norm.running_mean]


def masked(images):
    return [SupermaskConv2d(4, 6, 3, k=0.5, seed=0, device="cpu")(images)]


def rerandomised(images):
    layer = SupermaskConv2d(
        4, 6, 3, k=0.5, seed=0, device="cpu", rerandomise_every=1, rerandomise_fraction=0.5
    )
    rerandomise_(layer, 1, seed=0)
    return [layer.frozen]


def drawn(images):
    layer = MaskedConv2d(4, 6, 3, learned=2, device="cpu")
    draw_learned_(layer, seed=0)
    return [layer.learned]


@pytest.mark.parametrize("compute", [bn_relu_of, drawn, masked, rerandomised])
def test_another_default_device_changes_nothing(compute):
    images = torch.randn(2, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    expected = compute(images)
    with torch.device("meta"):
        found = compute(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
