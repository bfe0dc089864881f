"""The Triton kernels without a GPU: results in the interpreter, and the choice of tiles."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from maskedconv.ops.geometry import ConvGeometry
from maskedconv.ops.pack_filters import PackProblem
from maskedconv.ops.pack_filters import triton as pack_filters
from maskedconv.ops.weight_grad import WeightGradProblem, triton_config
from maskedconv.ops.weight_grad import triton as weight_grad

INTERPRETED = (
    "triton_interpreted.py",
    "triton_interpreted_bn_relu.py",
    "triton_interpreted_masked_weight.py",
)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("file", INTERPRETED)
def test_results_in_the_interpreter(file):
    path = Path(__file__).parent / file
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    summary = child.stdout.splitlines()[-1] if child.stdout else ""
    assert child.returncode == 0, child.stdout + child.stderr
    assert re.match(r"\d{2,} passed", summary), summary
    assert "skipped" not in summary


def test_importing_the_backends_does_not_need_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from maskedconv.ops.weight_grad import triton\n"
        "from maskedconv.ops.pack_filters import triton\n"
        "from maskedconv.ops.bn_relu import triton\n"
        "from maskedconv.ops.bn_statistics import triton\n"
        "from maskedconv.ops.masked_weight import triton\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_every_choice_is_listed():
    listed = triton_config.list_configurations()
    chosen = {
        triton_config.choose(channels, filters, taps)
        for channels, filters, taps in product(
            (1, 3, 16, 64, 65, 96, 102, 103, 128, 129, 160, 204, 256, 320, 512, 640, 2048),
            (*range(1, 40), 64, 65, 128, 640),
            (1, 2, 3, 4, 6, 7, 9, 10, 25, 49, 121),
        )
    }
    assert chosen == set(listed)
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("pixels", [1, 63, 64, 65, 1000, 131072])
@pytest.mark.parametrize("processors", [1, 16, 132])
def test_a_split_covers_every_pixel_once(pixels, processors):
    for configuration in triton_config.list_configurations():
        split = triton_config.split_pixels(configuration, 160, 1, pixels, processors)
        run = split.tiles * configuration.block_pixels
        assert (split.parts - 1) * run < pixels <= split.parts * run


def make_problem(**changes):
    input = torch.randn(2, 8, 5, 5).contiguous(memory_format=torch.channels_last)
    geometry = ConvGeometry((1, 1), (1, 1), (1, 1), 1)
    shape = torch.Size((3, 8, 3, 3))
    problem = WeightGradProblem(input, torch.randn(2, 6, 5, 5), shape, 0, geometry)
    return problem._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"slice_dim": 2}, "not of dimension 2"),
        ({"geometry": ConvGeometry((1, 1), (1, 1), (1, 1), 4)}, "one group, not 4"),
        ({"grad_output": torch.randn(2, 6, 5, 5).half()}, "the gradient torch.float16"),
        ({"input": torch.randn(2, 8, 5, 5)}, "channels_last input"),
        ({"input": torch.randn(0, 8, 5, 5)}, "the problem is empty"),
        ({}, "under TRITON_INTERPRET=1; the tensors are on cpu"),
    ],
)
def test_what_weight_grad_does_not_take(changes, reason, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert reason in weight_grad.cannot_run(make_problem(**changes))


@pytest.mark.parametrize(
    ("learned", "frozen", "reason"),
    [
        (torch.ones(1, 2, 3, 3).int(), torch.ones(1, 2, 3, 3), "not torch.int32"),
        (torch.ones(1, 0, 3, 3), torch.ones(1, 0, 3, 3), "nothing to pack"),
        (torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3, device="meta"), "cpu and meta"),
        (torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3), "the tensors are on cpu"),
    ],
)
def test_what_pack_filters_does_not_take(learned, frozen, reason, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    problem = PackProblem(learned, frozen, 0, torch.float32, torch.contiguous_format)
    assert reason in pack_filters.cannot_run(problem)
