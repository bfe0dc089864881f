"""DenseNet-BC (Huang et al. 2016, arXiv 1608.06993), CIFAR form."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.functional.batch_norm import is_intercepted, uses_batch_moments
from maskedconv.functional.features import GrowingFeatures
from maskedconv.methods import LayerFactory
from maskedconv.models.checks import check_count
from maskedconv.models.data_shape import DataShape
from maskedconv.models.initialisation import he_normal_
from maskedconv.models.layers import global_average
from maskedconv.models.recipe import Recipe
from maskedconv.nn import bn_relu, bn_relu_conv
from maskedconv.nn.dense_block import dense_block

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
    """bn-relu-1×1-bn-relu-3×3, the new features alone: [N, C, H, W] to [N, growth, H, W]."""

    def __init__(self, make: LayerFactory, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        self.bn1 = make.norm(in_channels)
        self.conv1 = make.conv(in_channels, 4 * growth_rate, 1, bias=False)
        self.bn2 = make.norm(4 * growth_rate)
        self.conv2 = make.conv(4 * growth_rate, growth_rate, 3, padding=1, bias=False)

    def units(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """Norm and convolution, twice."""
        return (self.bn1, self.conv1), (self.bn2, self.conv2)

    def forward(self, x: Tensor, moments: Tensor | None = None) -> Tensor:
        return bn_relu_conv(bn_relu_conv(x, self.bn1, self.conv1, moments), self.bn2, self.conv2)


class DenseBlock(nn.Sequential):
    """Each bottleneck appends to its input: [N, C, H, W] to [N, C + L growth, H, W]."""

    def __init__(self, make: LayerFactory, in_channels: int, layers: int, growth_rate: int) -> None:
        inputs = [in_channels + i * growth_rate for i in range(layers)]
        super().__init__(*(Bottleneck(make, size, growth_rate) for size in inputs))
        self.out_channels = in_channels + layers * growth_rate

    def forward(self, x: Tensor) -> Tensor:
        bottlenecks = cast(list[Bottleneck], list(self))
        if all(type(each) is Bottleneck and not is_intercepted(each) for each in bottlenecks):
            features = dense_block(x, [bottleneck.units() for bottleneck in bottlenecks])
            if features is not None:
                return features
        return self._layer_by_layer(x)

    def _layer_by_layer(self, x: Tensor) -> Tensor:
        features = GrowingFeatures(x, self.out_channels)
        for bottleneck in self:
            assert isinstance(bottleneck, Bottleneck)
            whole = features.whole
            moments = features.moments() if uses_batch_moments(bottleneck.bn1, whole) else None
            features.append(bottleneck(whole, moments))
        return features.whole


class Transition(nn.Module):
    """bn-relu-1×1-average pool, [N, C, H, W] to [N, O, H/2, W/2]."""

    def __init__(self, make: LayerFactory, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.bn = make.norm(in_channels)
        self.conv = make.conv(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(bn_relu_conv(x, self.bn, self.conv), 2)


class DenseNetBC(nn.Module):
    """conv1, three dense blocks with a transition after the first two, bn-relu, pool, fc.

    ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``. Transitions are not part of block1
    to block3, because table 1 of Rosenfeld & Tsotsos 2018 counts dense blocks without them.

    Args:
        make: creates the layers.
        blocks: bottlenecks in a dense block; the depth is 6 * blocks + 4.
        growth_rate: channels that a bottleneck adds.
        data: images of at least 4×4 pixels, because the transitions halve them twice.
        init: "he", or "default" for PyTorch's own.
    """

    def __init__(
        self,
        make: LayerFactory,
        data: DataShape,
        *,
        blocks: int,
        growth_rate: int,
        init: str = "he",
    ) -> None:
        super().__init__()
        check_count("image_size", data.image_size, minimum=4)

        def transition(channels: int) -> Transition:
            return Transition(make, channels, channels // _COMPRESSION)

        channels = 2 * growth_rate
        self.conv1 = make.conv(data.in_channels, channels, 3, padding=1, bias=False)
        self.block1 = DenseBlock(make, channels, blocks, growth_rate)
        self.transition1 = transition(self.block1.out_channels)
        channels = self.block1.out_channels // _COMPRESSION
        self.block2 = DenseBlock(make, channels, blocks, growth_rate)
        self.transition2 = transition(self.block2.out_channels)
        channels = self.block2.out_channels // _COMPRESSION
        self.block3 = DenseBlock(make, channels, blocks, growth_rate)
        channels = self.block3.out_channels
        self.bn = make.norm(channels)
        self.fc = make.linear(channels, data.num_classes)
        if init == "he":
            he_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.transition1(self.block1(self.conv1(x)))
        x = self.block3(self.transition2(self.block2(x)))
        return self.fc(global_average(bn_relu(x, self.bn)))
