"""The ledger of launches, on small networks."""

from __future__ import annotations

from collections import Counter

import emulation
import pytest
from torch import nn

from bench.launches import count_step, summary
from maskedconv import MaskedConv2d, models

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)
MOST_LAUNCHES_OF_A_LAYER = 10  # BatchNorm, ReLU and convolution, forward and backward
OURS = {
    "bn_statistics", "bn_statistics_of_sum", "bn_relu", "bn_relu_backward", "pack_filters",
    "weight_grad",
}  # fmt: skip


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return emulation.build_module(tmp_path_factory.mktemp("module"))


@pytest.mark.parametrize("network", ["wrn_10_1", "densenet_bc_16_12"])
def test_launches_of_a_step(network, module):
    entries = count_step(network, 0.5, False, module)
    launches: Counter[str] = Counter()
    for entry in entries:
        launches[entry.operator] += entry.launches
    model = models.create(network, learned=0.5)
    convs = sum(isinstance(m, MaskedConv2d) for m in model.modules())
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert launches["convolution"] == convs
    assert launches["convolution_backward"] == convs - 1  # images need no gradient
    assert launches["pack_filters"] == convs
    assert launches["weight_grad"] == 2 * convs
    assert launches["bn_relu_backward"] == 2 * launches["bn_relu"]
    sums = launches["bn_statistics_of_sum"]
    assert sums == (2 if network == "wrn_10_1" else 0)  # of three blocks
    assert norms <= launches["bn_statistics"] + sums <= 2 * norms
    assert launches.keys() | {"bn_statistics_of_sum"} >= OURS
    convolutions = launches["convolution"] + launches["convolution_backward"]
    ours = convolutions + sum(launches[name] for name in OURS)
    assert ours <= MOST_LAUNCHES_OF_A_LAYER * convs
    assert summary(entries)[-1]["launches"] == launches.total()


def test_plain_modules_have_none_of_our_operators(module):
    names = {entry.operator for entry in count_step("wrn_10_1", 0.5, True, module)}
    assert not OURS & names
    assert {"convolution", "convolution_backward"} <= names


def test_bytes_of_a_sum(module):
    """Three accesses for the sum and its statistics, one more of backward for a shortcut."""
    entries = count_step("wrn_16_1", 0.5, False, module)

    def accesses(operator):
        return [
            entry.bytes / (2 * entry.problem.input.numel())
            for entry in entries
            if entry.operator == operator
        ]

    assert accesses("bn_statistics_of_sum") == [3] * 5
    # Two launches read input and gradient, and one writes. The second block of each of the three
    # groups adds the gradient of its shortcut.
    assert sorted(accesses("bn_relu_backward")) == [5] * 10 + [6] * 3
