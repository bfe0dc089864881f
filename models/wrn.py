"""Wide residual networks (Zagoruyko & Komodakis 2016, arXiv 1605.07146), CIFAR form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.checks import check_dropout
from maskedconv.functional.batch_norm import is_intercepted
from maskedconv.methods import LayerFactory
from maskedconv.models.data_shape import DataShape
from maskedconv.models.initialisation import he_normal_
from maskedconv.models.layers import global_average
from maskedconv.models.recipe import Recipe
from maskedconv.nn import bn_relu, bn_relu_conv, bn_relu_convs, sum_bn_relu_convs

# Rosenfeld & Tsotsos 2018, section 4, with the schedule of the authors' code.
RECIPE = Recipe(
    epochs=200,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    milestones=(60, 120, 160),
    gamma=0.2,
)
RECIPE_28_10 = replace(RECIPE, dropout=0.3)


class BasicBlock(nn.Module):
    """bn-relu-conv-bn-relu-[dropout]-conv plus a shortcut, [N, C, H, W] to [N, O, H/s, W/s].

    If the number of channels or the size changes, the shortcut is a 1×1 convolution of the first
    bn-relu's output.
    """

    def __init__(
        self, make: LayerFactory, in_channels: int, out_channels: int, stride: int, dropout: float
    ) -> None:
        super().__init__()
        self.bn1 = make.norm(in_channels)
        self.conv1 = make.conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = make.norm(out_channels)
        self.conv2 = make.conv(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = make.conv(in_channels, out_channels, 1, stride=stride, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        out, shortcut = self.branches(x)
        return shortcut + out

    def branches(self, x: Tensor, summand: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The two tensors whose sum is the block's output, for the input ``x + summand``."""
        convs = [self.conv1] if self.shortcut is None else [self.conv1, self.shortcut]
        if summand is None:
            out, *rest = bn_relu_convs(x, self.bn1, convs)
        else:
            x, out, *rest = sum_bn_relu_convs(x, summand, self.bn1, convs)
        shortcut = rest[0] if rest else x
        if self.dropout and self.training:
            out = self.conv2(F.dropout(bn_relu(out, self.bn2), self.dropout))
        else:
            out = bn_relu_conv(out, self.bn2, self.conv2)
        return out, shortcut


def _run_blocks(x: Tensor, groups: Sequence[nn.Module]) -> Tensor:
    """The groups one after another. The sum at a block's end is computed with the next block's
    statistics, unless something else happens when a group or block is called.
    """
    blocks = [block for group in groups if type(group) is nn.Sequential for block in group]
    modules = [*groups, *blocks]
    types = {type(module) for module in modules}
    if types != {nn.Sequential, BasicBlock} or any(map(is_intercepted, modules)):
        for group in groups:
            x = group(x)
        return x
    summand = None
    for block in blocks:
        assert isinstance(block, BasicBlock)
        x, summand = block.branches(x, summand)
    return x if summand is None else x + summand


class WideResNet(nn.Module):
    """conv1, three groups of pre-activation blocks, bn-relu, average pool, fc.

    ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``. The groups have strides 1, 2, 2, or
    2, 2, 2 for images of at least 64×64 pixels, as in the authors' Tiny-ImageNet variant (Rosenfeld
    & Tsotsos 2018, table 3).

    Args:
        make: creates the layers, shortcuts included.
        blocks: blocks in a group; the depth is 6 * blocks + 4.
        widen_factor: the groups have 16, 32, 64 times this many channels.
        dropout: dropout probability between the two convolutions of a block.
        init: "he", or "default" for PyTorch's own.
    """

    def __init__(
        self,
        make: LayerFactory,
        data: DataShape,
        *,
        blocks: int,
        widen_factor: int,
        dropout: float = 0.0,
        init: str = "he",
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        widths = [16 * widen_factor, 32 * widen_factor, 64 * widen_factor]

        def group(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
            first = BasicBlock(make, in_channels, out_channels, stride, dropout)
            others = (
                BasicBlock(make, out_channels, out_channels, 1, dropout) for _ in range(blocks - 1)
            )
            return nn.Sequential(first, *others)

        self.conv1 = make.conv(data.in_channels, 16, 3, padding=1, bias=False)
        self.block1 = group(16, widths[0], 2 if data.image_size >= 64 else 1)
        self.block2 = group(widths[0], widths[1], 2)
        self.block3 = group(widths[1], widths[2], 2)
        self.bn = make.norm(widths[2])
        self.fc = make.linear(widths[2], data.num_classes)
        if self.fc.bias is not None:
            nn.init.zeros_(self.fc.bias)
        if init == "he":
            he_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = _run_blocks(self.conv1(x), (self.block1, self.block2, self.block3))
        return self.fc(global_average(bn_relu(x, self.bn)))
