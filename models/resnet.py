"""The CIFAR ResNets of depth 6n + 2 (He et al. 2015, arXiv 1512.03385).

These are the variants that Frankle, Schwab & Morcos 2020 (arXiv 2003.00152) train by BatchNorm
alone: γ starts uniform in [0, 1], and a shortcut that changes the shape is a 1×1 convolution with
BatchNorm. Convolutions are drawn from N(0, 2 / fan_in), and so is the weight of the fc layer, as in
the authors' public code (GitHub, facebookresearch/open_lth).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.checks import check_flag
from maskedconv.methods import LayerFactory
from maskedconv.models.checks import check_width, scaled
from maskedconv.models.data_shape import DataShape
from maskedconv.models.initialisation import draw_weight_, he_normal_, uniform_gamma_
from maskedconv.models.layers import global_average, norm_relu, projection
from maskedconv.models.recipe import Recipe
from maskedconv.nn import bn_relu_conv
from maskedconv.nn.folding import fold_

# Frankle, Schwab & Morcos 2020, section 3.
RECIPE = Recipe(
    epochs=160,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(80, 120),
    gamma=0.1,
)


class BasicBlock(nn.Module):
    """conv-bn-relu-conv-bn plus a shortcut, then relu: [N, C, H, W] to [N, O, H/s, W/s]."""

    expansion = 1

    def __init__(
        self, make: LayerFactory, in_channels: int, out_channels: int, stride: int
    ) -> None:
        super().__init__()
        self.conv1 = make.conv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = make.norm(out_channels)
        self.conv2 = make.conv(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = make.norm(out_channels)
        self.shortcut = projection(make, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out = bn_relu_conv(self.conv1(x), self.bn1, self.conv2)
        return F.relu(self.bn2(out) + shortcut, inplace=True)


class ResNet(nn.Module):
    """conv1-bn-relu, three groups of post-activation blocks (16, 32, 64 channels), pool, fc.

    ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``.

    Args:
        make: creates the layers, shortcuts included.
        blocks: blocks in a group; the depth is 6 * blocks + 2.
        width: multiplies every number of channels.
        fold: whether convolutions of one place and shape in the blocks of a group share one frozen
            weight, with masks of their own.

    Raises:
        ValueError: ``fold`` is True, and the layers have no frozen weight and scores.
    """

    def __init__(
        self,
        make: LayerFactory,
        data: DataShape,
        *,
        blocks: int,
        width: float = 1.0,
        fold: bool = False,
    ) -> None:
        super().__init__()
        check_width(width)
        narrow, middle, wide = (scaled(channels, width) for channels in (16, 32, 64))

        def group(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
            first = BasicBlock(make, in_channels, out_channels, stride)
            others = (BasicBlock(make, out_channels, out_channels, 1) for _ in range(blocks - 1))
            return nn.Sequential(first, *others)

        self.conv1 = make.conv(data.in_channels, narrow, 3, padding=1, bias=False)
        self.bn1 = make.norm(narrow)
        self.block1 = group(narrow, narrow, 1)
        self.block2 = group(narrow, middle, 2)
        self.block3 = group(middle, wide, 2)
        self.fc = make.linear(wide, data.num_classes)
        he_normal_(self, "fan_in")
        draw_weight_(self.fc, partial(nn.init.kaiming_normal_, nonlinearity="relu"))
        uniform_gamma_(self)
        if check_flag("fold", fold):
            for blocks_of_group in (self.block1, self.block2, self.block3):
                fold_(blocks_of_group)

    def forward(self, x: Tensor) -> Tensor:
        x = norm_relu(self.bn1, self.conv1(x))
        return self.fc(global_average(self.block3(self.block2(self.block1(x)))))
