"""Fused models within checkpoints, and within hooks that count."""

from __future__ import annotations

import copy
import weakref
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from maskedconv import fuse_

IMAGES = torch.randn(2, 3, 8, 8, dtype=torch.float64)


class Dense(nn.Module):
    """Each convolution reads all features before it, so that several recipes need a tensor."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.last = nn.Conv2d(20, 2, 3)
        self.double()

    def forward(self, x):
        x = self.first(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat((x, conv(F.relu(norm(x)))), 1)
        return self.last(x)


def models():
    """A plain model and its fused copy."""
    torch.manual_seed(0)
    plain = Dense()
    fused = copy.deepcopy(plain)
    report = fuse_(fused, IMAGES)
    assert report.kept_after < 0.7 * report.kept_before
    return plain, fused


def gradients(model, output, **options):
    return torch.autograd.grad(output.square().sum(), list(model.parameters()), **options)


def nested(model, images):
    return checkpoint(
        lambda x: checkpoint(model, x, use_reentrant=False), images, use_reentrant=False
    )


def without_early_stop(model, images):
    with torch.utils.checkpoint.set_checkpoint_early_stop(False):
        return checkpoint(model, images, use_reentrant=False)


CHECKPOINTS = {
    "one": lambda model, images: checkpoint(model, images, use_reentrant=False),
    "nested": nested,
    "without early stop": without_early_stop,
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_in_a_checkpoint(name):
    plain, fused = models()
    expected = gradients(plain, plain(IMAGES))
    ours = gradients(fused, CHECKPOINTS[name](fused, IMAGES))
    assert all(map(torch.equal, ours, expected))


def test_several_passes_through_a_checkpoint():
    plain, fused = models()
    expected = gradients(plain, plain(IMAGES))
    output = checkpoint(fused, IMAGES, use_reentrant=False)
    for _ in range(2):
        # The gradient of one parameter, for which most of the graph does not run.
        torch.autograd.grad(output.sum(), fused.last.weight, retain_graph=True)
        ours = gradients(fused, output, retain_graph=True)
        assert all(map(torch.equal, ours, expected))


class Counting:
    """Hooks that count how often each tensor is unpacked, and know which ones exist."""

    def __init__(self):
        self.unpacked: Counter[int] = Counter()
        self.packed: list[torch.Tensor] = []
        self.existing: list[weakref.ref[torch.Tensor]] = []

    def pack(self, tensor):
        self.packed.append(tensor.detach().clone())
        return len(self.packed) - 1

    def unpack(self, index):
        self.unpacked[index] += 1
        value = self.packed[index].clone()
        self.existing.append(weakref.ref(value))
        return value


def test_hooks_unpack_once_in_a_pass():
    _, fused = models()
    hooks = Counting()
    with torch.autograd.graph.saved_tensors_hooks(hooks.pack, hooks.unpack):
        output = fused(IMAGES)
    for count in (1, 2):
        gradients(fused, output, retain_graph=True)
        assert set(hooks.unpacked.values()) == {count}
        assert not any(reference() is not None for reference in hooks.existing)
