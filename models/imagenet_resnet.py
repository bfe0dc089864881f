"""The ImageNet ResNets (He et al. 2015, arXiv 1512.03385), with 1×1 shortcuts with BatchNorm.

Training and initialisation follow Frankle, Schwab & Morcos 2020 (arXiv 2003.00152): He's in fan-in
mode, and γ uniform in [0, 1].
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.methods import LayerFactory
from maskedconv.models.data_shape import DataShape
from maskedconv.models.initialisation import draw_weight_, he_normal_, uniform_gamma_
from maskedconv.models.layers import global_average, norm_relu, projection
from maskedconv.models.recipe import Recipe
from maskedconv.models.resnet import BasicBlock
from maskedconv.nn import bn_relu_conv

# Frankle, Schwab & Morcos 2020, appendix A.
RECIPE = Recipe(
    epochs=90,
    batch_size=1024,
    lr=0.4,
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(30, 60, 80),
    gamma=0.1,
    warmup=5,
)
# Blocks of the four groups, by depth. Those of the first two networks are BasicBlocks.
_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_BASIC = (18, 34)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution with BatchNorm, plus a shortcut, then relu.

    ``[N, C, H, W]`` to ``[N, 4 F, H/s, W/s]``; the 3×3 convolution has the stride.
    """

    expansion = 4

    def __init__(self, make: LayerFactory, in_channels: int, filters: int, stride: int) -> None:
        super().__init__()
        out_channels = self.expansion * filters
        self.conv1 = make.conv(in_channels, filters, 1, bias=False)
        self.bn1 = make.norm(filters)
        self.conv2 = make.conv(filters, filters, 3, stride=stride, padding=1, bias=False)
        self.bn2 = make.norm(filters)
        self.conv3 = make.conv(filters, out_channels, 1, bias=False)
        self.bn3 = make.norm(out_channels)
        self.shortcut = projection(make, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out = bn_relu_conv(self.conv1(x), self.bn1, self.conv2)
        out = self.bn3(bn_relu_conv(out, self.bn2, self.conv3))
        return F.relu(out + shortcut, inplace=True)


class ImageNetResNet(nn.Module):
    """7×7 conv1-bn-relu, max-pool, four groups of blocks, average pool, fc.

    ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``; 224×224 pixels in the paper.

    Args:
        make: creates the layers, shortcuts included.
        layers: the depth, 18, 34, 50, 101, 152 or 200.
    """

    def __init__(self, make: LayerFactory, data: DataShape, *, layers: int) -> None:
        super().__init__()
        block = BasicBlock if layers in _BASIC else Bottleneck
        channels = 64

        def group(index: int, blocks: int) -> nn.Sequential:
            nonlocal channels
            made: list[nn.Module] = []
            for number in range(blocks):
                stride = 2 if index and not number else 1
                made.append(block(make, channels, 64 << index, stride))
                channels = block.expansion * (64 << index)
            return nn.Sequential(*made)

        self.conv1 = make.conv(data.in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = make.norm(64)
        self.block1, self.block2, self.block3, self.block4 = (
            group(index, blocks) for index, blocks in enumerate(_BLOCKS[layers])
        )
        self.fc = make.linear(channels, data.num_classes)
        he_normal_(self, "fan_in")
        draw_weight_(self.fc, partial(nn.init.kaiming_normal_, nonlinearity="relu"))
        uniform_gamma_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(norm_relu(self.bn1, self.conv1(x)), 3, 2, 1)
        x = self.block4(self.block3(self.block2(self.block1(x))))
        return self.fc(global_average(x))
