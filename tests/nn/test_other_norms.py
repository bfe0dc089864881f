"""Other modules in place of BatchNorm, against the three separate modules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskedconv import models
from maskedconv.methods import LayerFactory
from maskedconv.models import densenet, resnet, wrn
from maskedconv.nn import BNReLUConv2d, MaskedConv2d, bn_relu, bn_relu_conv, bn_relu_convs


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel."""

    def forward(self, input):
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class Doubled(nn.BatchNorm2d):
    def forward(self, input):
        return 2 * super().forward(input)


class Frozen(nn.Module):
    """Statistics and affine parts are buffers."""

    def __init__(self, channels):
        super().__init__()
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, input):
        return F.batch_norm(input, self.mean, self.var, self.weight, self.bias)


def keeping(channels):
    """A BatchNorm with a hook that stores its output, which must not change."""
    bn = nn.BatchNorm2d(channels)
    bn.register_forward_hook(lambda module, _, out: setattr(module, "kept", out))
    return bn


def replaced_forward(channels):
    bn = nn.BatchNorm2d(channels)
    bn.forward = lambda input: 3 * nn.BatchNorm2d.forward(bn, input)
    return bn


NORMS = {
    "identity": lambda channels: nn.Identity(),
    "group": lambda channels: nn.GroupNorm(2, channels),
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True, track_running_stats=True),
    "channel": ChannelNorm,
    "sync": nn.SyncBatchNorm,
    "subclass": Doubled,
    "frozen": Frozen,
    "no_running": lambda channels: nn.BatchNorm2d(channels, track_running_stats=False),
    "cumulative": lambda channels: nn.BatchNorm2d(channels, momentum=None),
    "no_affine": lambda channels: nn.BatchNorm2d(channels, affine=False),
    "elu": lambda channels: nn.ELU(),
    "hook": keeping,
    "replaced_forward": replaced_forward,
}


def replace_norms(module, make):
    """Replaces every BatchNorm2d of ``module`` by ``make(channels)``."""
    for name, child in list(module.named_children()):
        if type(child) is nn.BatchNorm2d:
            setattr(module, name, make(child.num_features))
        else:
            replace_norms(child, make)
    return module


def conv(*arguments, **options):
    return MaskedConv2d(*arguments, **options, learned=0.5, seed=0)


MAKE = LayerFactory(conv=conv)


# The blocks, computed by plain modules.
def plain_bottleneck(block, x):
    x = block.conv1(F.relu(block.bn1(x)))
    return block.conv2(F.relu(block.bn2(x)))


def plain_dense(block, x):
    for layer in block:
        x = torch.cat((x, plain_bottleneck(layer, x)), 1)
    return x


def plain_wide(block, x):
    out = F.relu(block.bn1(x))
    shortcut = x if block.shortcut is None else block.shortcut(out)
    return shortcut + block.conv2(F.relu(block.bn2(block.conv1(out))))


def plain_residual(block, x):
    shortcut = x if block.shortcut is None else block.shortcut(x)
    out = F.relu(block.bn1(block.conv1(x)))
    return F.relu(block.bn2(block.conv2(out)) + shortcut)


BLOCKS = {
    "fused": (
        lambda: BNReLUConv2d(nn.BatchNorm2d(8), conv(8, 8, 3, padding=1)),
        lambda layer, x: layer.conv(F.relu(layer.bn(x))),
    ),
    "dense": (lambda: densenet.DenseBlock(MAKE, 8, 2, 4), plain_dense),
    "transition": (
        lambda: densenet.Transition(MAKE, 8, 4),
        lambda block, x: F.avg_pool2d(block.conv(F.relu(block.bn(x))), 2),
    ),
    "wrn": (lambda: wrn.BasicBlock(MAKE, 8, 8, 1, 0.0), plain_wide),
    "wrn_wider": (lambda: wrn.BasicBlock(MAKE, 8, 12, 2, 0.0), plain_wide),
    "resnet": (lambda: resnet.BasicBlock(MAKE, 8, 8, 1), plain_residual),
    "resnet_wider": (lambda: resnet.BasicBlock(MAKE, 8, 12, 2), plain_residual),
}


def outcome(call, module, x, grad):
    """Output, gradients and buffers."""
    x = x.detach().requires_grad_()
    out = call(x)
    out.backward(grad(out))
    return [out.detach(), x.grad, *(p.grad for p in module.parameters()), *module.buffers()]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_with_any_norm(block, norm, training):
    if norm == "sync" and training:
        pytest.skip("SyncBatchNorm trains on a GPU only")
    make, plain = BLOCKS[block]
    # `replaced_forward` would leave copies with a forward of the original.
    torch.manual_seed(1)
    layer = replace_norms(make(), NORMS[norm]).double().train(training)
    torch.manual_seed(1)
    other = replace_norms(make(), NORMS[norm]).double().train(training)
    other.load_state_dict(layer.state_dict())
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 8, 6, 6).double().to(memory_format=memory_format)
        untouched = x.clone()
        layer.zero_grad(), other.zero_grad()
        ours = outcome(layer, layer, x, lambda out: out.detach().cos())
        theirs = outcome(lambda x: plain(other, x), other, x, lambda out: out.detach().cos())
        torch.testing.assert_close(ours, theirs, check_stride=False)
        assert torch.equal(x, untouched)
    if norm == "hook":
        for a, b in zip(layer.modules(), other.modules(), strict=True):
            if hasattr(a, "kept"):
                torch.testing.assert_close(a.kept, b.kept)


@pytest.mark.parametrize("norm", NORMS)
def test_activation_alone_and_of_two_convolutions(norm):
    module, x = NORMS[norm](8).eval(), torch.randn(2, 8, 5, 5)
    untouched, convs = x.clone(), (conv(8, 4, 3), conv(8, 6, 1))
    expected = F.relu(module(x.clone()))
    torch.testing.assert_close(bn_relu(x, module), expected, rtol=1e-5, atol=1e-5)
    for out, each in zip(bn_relu_convs(x, module, convs), convs, strict=True):
        torch.testing.assert_close(out, each(expected), rtol=1e-5, atol=1e-5)
    assert torch.equal(x, untouched)


@pytest.mark.parametrize("name", ["densenet_bc_16_12", "wrn_16_1", "resnet_20"])
@pytest.mark.parametrize("norm", ["group", "identity"])
def test_networks_train_and_evaluate(name, norm):
    model = replace_norms(models.create(name, learned=0.5), NORMS[norm])
    x = torch.randn(2, 3, 32, 32)
    model(x).square().mean().backward()
    model.eval()
    torch.testing.assert_close(model(x), model.train()(x))
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("block", ["fused", "dense", "wrn"])
def test_empty_batches_train_as_in_batch_norm(block):
    make, plain = BLOCKS[block]
    layer = make().double()
    other, x = copy.deepcopy(layer), torch.randn(0, 8, 6, 6).double()
    ours = outcome(layer, layer, x, torch.ones_like)
    theirs = outcome(lambda x: plain(other, x), other, x, torch.ones_like)
    torch.testing.assert_close(ours, theirs, check_stride=False)


def test_hooks_of_all_modules_see_the_parts():
    layer, seen = BLOCKS["fused"][0](), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, *_: seen.append(type(module))
    )
    layer(torch.randn(2, 8, 5, 5))
    handle.remove()
    assert seen == [nn.BatchNorm2d, MaskedConv2d, BNReLUConv2d]


BAD = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", ["input", "gradient", "weight", "bias"])
def test_what_is_not_finite_goes_through_the_reference(place, bad, training, memory_format):
    """NaN and infinities in the same elements as the modules, and numbers elsewhere."""
    layer = (
        BNReLUConv2d(
            nn.BatchNorm2d(4), MaskedConv2d(4, 6, 3, learned=2, seed=0, backend="reference")
        )
        .double()
        .train(training)
    )
    x = torch.randn(2, 4, 6, 6).double().to(memory_format=memory_format)
    grad = torch.randn(2, 6, 4, 4).double()
    with torch.no_grad():
        {"input": x, "gradient": grad}.get(place, x)[1, 2, 3, 3] = BAD[bad] if place in (
            "input", "gradient"
        ) else 1.0  # fmt: skip
        if place in ("weight", "bias"):
            getattr(layer.bn, place)[1] = BAD[bad]
    other = copy.deepcopy(layer)
    ours = outcome(layer, layer, x, lambda out: grad)
    theirs = outcome(lambda x: other.conv(F.relu(other.bn(x))), other, x, lambda out: grad)
    torch.testing.assert_close(ours, theirs, equal_nan=True, check_stride=False)


def test_without_a_norm_the_input_stays():
    x = torch.randn(2, 8, 5, 5)
    before, layer = x.clone(), conv(8, 4, 3)
    out = bn_relu_conv(x, nn.Identity(), layer)
    assert torch.equal(x, before)
    assert torch.equal(out, layer(F.relu(x)))
