"""Complete networks: fewer saved bytes than in plain PyTorch, and the same numbers."""

from __future__ import annotations

import copy
from statistics import median

import pytest
import torch
from precision import assert_as_exact, rms_error
from torch import nn

from bench.saved_bytes import PLAIN, compare, saved_bytes
from maskedconv import models
from maskedconv.functional.features import GrowingFeatures

SMALL = {"wrn_10_1": PLAIN["wrn_28_4"], "densenet_bc_16_12": PLAIN["densenet_bc_100_12"]}
LIMITS = {"wrn_28_4": 0.51, "densenet_bc_100_12": 0.18}


def test_counting_of_saved_bytes():
    """A linear layer saves its input once; a view counts with its complete storage."""
    linear, wide = nn.Linear(4, 3, bias=False), torch.randn(5, 8)
    assert saved_bytes(lambda: linear(wide[:, :4]), linear.parameters()) == wide.nbytes
    both = saved_bytes(lambda: linear(wide[:, :4]) + linear(wide[:, 4:]), linear.parameters())
    assert both == wide.nbytes
    wide.requires_grad_()
    assert saved_bytes(lambda: linear(wide[:, :4]), []) == wide.nbytes + linear.weight.nbytes


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", PLAIN)
def test_networks_keep_about_half_or_less(name, memory_format):
    plain, ours = compare(name, 2, 0.1, "random", memory_format)
    assert ours <= LIMITS[name] * plain


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("frozen", ["random", "zero"])
@pytest.mark.parametrize("slice_dim", [0, 1])
@pytest.mark.parametrize("name", SMALL)
def test_networks_compute_what_their_modules_do(name, slice_dim, frozen, training):
    network = models.create(name, learned=0.3, slice_dim=slice_dim, frozen=frozen, seed=0)
    network = network.double().train(training)
    plain, x = copy.deepcopy(network), torch.randn(3, 3, 16, 16, dtype=torch.float64)
    for _ in range(2):
        logits, expected = network(x), SMALL[name](plain, x)
        torch.testing.assert_close(logits, expected)
        for model, output in ((network, logits), (plain, expected)):
            model.zero_grad()
            output.square().sum().backward()
        for (key, value), other in zip(network.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(
                value.grad, other.grad, check_stride=False, msg=lambda m, k=key: f"{k}: {m}"
            )
    for (key, value), other in zip(network.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(value, other, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16-autocast"])
@pytest.mark.parametrize("name", SMALL)
def test_compiled_kernels_on_views_of_wider_features(name, autocast):
    """channels_last: the CPU kernels read the layers' inputs in place."""
    runs = [gradients_of_a_step(name, seed, autocast) for seed in range(5)]
    for key in runs[0][0]:
        ours, plain, exact = ([run[i][key] for run in runs] for i in range(3))
        # In bfloat16 plain modules err by more than a ReLU that flips does.
        dtype, of_seeds = (torch.bfloat16, max) if autocast else (torch.float32, median)
        assert_as_exact(ours, plain, exact, key, measure=rms_error, dtype=dtype, of_seeds=of_seeds)


def gradients_of_a_step(name, seed, autocast):
    """Gradients by name: of the network, of its plain modules, and of those in float64."""
    torch.manual_seed(seed)
    network = models.create(name, learned=0.3, seed=seed).to(memory_format=torch.channels_last)
    x = torch.randn(8, 3, 16, 16).to(memory_format=torch.channels_last)
    plain, exact = copy.deepcopy(network), copy.deepcopy(network).double()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        outputs = [network(x), SMALL[name](plain, x)]
    outputs.append(SMALL[name](exact, x.double()))
    for output in outputs:
        output.double().square().sum().backward()
    return [
        {key: parameter.grad for key, parameter in model.named_parameters()}
        for model in (network, plain, exact)
    ]


@pytest.mark.parametrize("name", SMALL)
def test_compiled_training_step_is_the_same(name):
    network = models.create(name, learned=0.3, seed=0).double()
    other, x = copy.deepcopy(network), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.compiler.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    network(x).square().sum().backward()
    compiled(x).square().sum().backward()
    for (key, value), same in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(
            value.grad, same.grad, check_stride=False, msg=lambda m, k=key: f"{k}: {m}"
        )
    for value, same in zip(network.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(value, same)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_growing_features_equal_concatenations(memory_format):
    shapes = [(2, 3, 4, 5), (2, 2, 4, 5), (2, 4, 4, 5)]
    parts = [torch.randn(shape).to(memory_format=memory_format) for shape in shapes]
    ours, plain = ([p.clone().requires_grad_() for p in parts] for _ in range(2))
    features = GrowingFeatures(ours[0], 9)
    read = [features.whole.square()]
    for part in ours[1:]:
        features.append(part)
        read.append(features.whole.square())
    expected = [torch.cat(plain[: i + 1], 1).square() for i in range(3)]
    for one, other in zip(read, expected, strict=True):
        torch.testing.assert_close(one, other)
    sum(one.sin().sum() for one in read).backward()
    sum(one.sin().sum() for one in expected).backward()
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_growing_features_know_their_moments():
    features = GrowingFeatures(torch.randn(4, 3, 5, 5, dtype=torch.float64), 8)
    for channels in (2, 3):
        features.moments()
        features.append(torch.randn(4, channels, 5, 5, dtype=torch.float64) + 1)
    var, mean = torch.var_mean(features.whole, (0, 2, 3), correction=0)
    torch.testing.assert_close(features.moments(), torch.stack((mean, var)))


def test_growing_features_of_two_types_concatenate():
    first, new = torch.randn(1, 2, 3, 3).bfloat16(), torch.randn(1, 2, 3, 3)
    features = GrowingFeatures(first, 4)
    features.append(new)
    assert torch.equal(features.whole, torch.cat((first, new), 1))


def test_changing_growing_features_in_place_is_refused():
    features = GrowingFeatures(torch.randn(1, 2, 3, 3, requires_grad=True), 4)
    with pytest.raises(RuntimeError, match="inplace"):
        features.whole.relu_()
