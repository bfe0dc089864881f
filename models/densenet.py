"""DenseNet-BC (Huang et al. 2016, arXiv 1608.06993), CIFAR form."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.models.checks import check_count
from maskedconv.models.initialisation import he_normal_
from maskedconv.models.layers import ConvFactory, global_average, relu
from maskedconv.models.recipe import Recipe

# Rosenfeld & Tsotsos 2018, section 4, with the schedule of the authors' code.
RECIPE = Recipe(
    epochs=300,
    batch_size=64,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(150, 225),
    gamma=0.1,
)

_COMPRESSION = 2


class Bottleneck(nn.Module):
    """bn-relu-1×1-bn-relu-3×3, appended to its input: [N, C, H, W] to [N, C + growth, H, W]."""

    def __init__(self, conv: ConvFactory, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, 4 * growth_rate, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth_rate)
        self.conv2 = conv(4 * growth_rate, growth_rate, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(relu(self.bn1(x)))
        new = self.conv2(relu(self.bn2(new)))
        return torch.cat((x, new), 1)


class Transition(nn.Module):
    """bn-relu-1×1-average pool, [N, C, H, W] to [N, O, H/2, W/2]."""

    def __init__(self, conv: ConvFactory, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = conv(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(relu(self.bn(x))), 2)


class DenseNetBC(nn.Module):
    """conv1, three dense blocks with a transition after the first two, bn-relu, pool, fc.

    ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``. Transitions are apart from
    block1..3, as the paper's table 1 counts the parameters of the dense blocks alone.

    Args:
        conv: makes the convolutions.
        blocks: bottlenecks in a dense block; the depth is 6 * blocks + 4.
        growth_rate: channels that a bottleneck adds.
        image_size: at least 4, as the transitions halve it twice.
    """

    def __init__(
        self,
        conv: ConvFactory,
        num_classes: int,
        *,
        blocks: int,
        growth_rate: int,
        in_channels: int = 3,
        image_size: int = 32,
    ) -> None:
        super().__init__()
        check_count("in_channels", in_channels)
        check_count("image_size", image_size, minimum=4)

        def dense_block(channels: int) -> tuple[nn.Sequential, int]:
            inputs = [channels + i * growth_rate for i in range(blocks)]
            bottlenecks = (Bottleneck(conv, size, growth_rate) for size in inputs)
            return nn.Sequential(*bottlenecks), channels + blocks * growth_rate

        channels = 2 * growth_rate
        self.conv1 = conv(in_channels, channels, 3, padding=1, bias=False)
        self.block1, channels = dense_block(channels)
        self.transition1 = Transition(conv, channels, channels // _COMPRESSION)
        self.block2, channels = dense_block(channels // _COMPRESSION)
        self.transition2 = Transition(conv, channels, channels // _COMPRESSION)
        self.block3, channels = dense_block(channels // _COMPRESSION)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)
        he_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.transition1(self.block1(self.conv1(x)))
        x = self.block3(self.transition2(self.block2(x)))
        return self.fc(global_average(relu(self.bn(x))))
