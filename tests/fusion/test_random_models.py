"""Random chains of layers, sums and concatenations compute the same bits when fused."""

from __future__ import annotations

import pytest
import torch
from fused_passes import assert_same, run_pass
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from maskedconv.fusion.attached import attach

WIDTH = 4
LAYERS = {
    "conv": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
    "depthwise": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH),
    "batch norm": lambda: nn.BatchNorm2d(WIDTH),
    "group norm": lambda: nn.GroupNorm(2, WIDTH),
    "instance norm": lambda: nn.InstanceNorm2d(WIDTH, affine=True),
    "relu": lambda: nn.ReLU(),
    "relu in place": lambda: nn.ReLU(inplace=True),
    "silu in place": lambda: nn.SiLU(inplace=True),
    "relu6": lambda: nn.ReLU6(),
    "gelu": lambda: nn.GELU(),
    "dropout": lambda: nn.Dropout(0.3),
}
# Combine the current tensor with the one of some steps before.
COMBINATIONS = {
    "add": lambda now, before: now + before,
    "add in place": lambda now, before: now.add_(before),
    "multiply": lambda now, before: now * before,
    "gate": lambda now, before: now * before.mean((2, 3), keepdim=True).sigmoid(),
    "concatenate": lambda now, before: torch.cat((now, before[:, :2]), 1)[:, 1 : WIDTH + 1],
    "view": lambda now, before: now.transpose(2, 3).relu().transpose(2, 3),
}
STEPS = st.lists(
    st.tuples(st.sampled_from([*LAYERS, *COMBINATIONS]), st.integers(1, 4)), min_size=2, max_size=14
)


class RandomModel(nn.Module):
    def __init__(self, steps: list[tuple[str, int]]) -> None:
        super().__init__()
        self.steps = steps
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, WIDTH, 3)
        self.layers = nn.ModuleList(LAYERS[name]() for name, _ in steps if name in LAYERS)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        results, layers = [self.first(images)], iter(self.layers)
        for name, back in self.steps:
            before = results[-min(back, len(results))]
            if name in LAYERS:
                results.append(next(layers)(results[-1]))
            else:
                results.append(COMBINATIONS[name](results[-1], before))
        return results[-1]


@settings(max_examples=150)
@given(STEPS, st.booleans(), st.booleans())
def test_same_bits(steps, training, channels_last):
    """PyTorch itself may refuse a pass, because a tensor was changed in place."""
    model = RandomModel(steps).train(training)
    images = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    try:
        plain = run_pass_unhooked(model, images)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        return
    attach(model, paused=())
    try:
        fused = run_pass(model, images)
    except RuntimeError as error:
        # A part of a concatenation was changed after it. fuse_ leaves such a model alone.
        if "inplace operation" not in str(error) or "concatenate" not in dict(steps):
            raise
        return
    assert_same(fused, plain)


def run_pass_unhooked(model: nn.Module, images: Tensor):
    """A pass under PyTorch's check of tensors changed in place, which hooks suspend."""
    torch.manual_seed(1)
    output = model(images.detach().clone().requires_grad_())
    output.sum().backward()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    return run_pass(model, images)


@pytest.mark.parametrize("first", ["batch norm", "group norm", "gelu"])
def test_a_chain_keeps_less(first):
    model = RandomModel([(first, 1), ("silu in place", 1), ("conv", 1), ("batch norm", 1)])
    images = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    plain = run_pass(model, images)
    attach(model, paused=())
    assert run_pass(model, images).kept < plain.kept
