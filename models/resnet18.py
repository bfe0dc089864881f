"""ResNet-18 for small images: a 3×3 first convolution, and no max-pool behind it.

Training and the lack of biases follow Ramanujan et al. 2019 (arXiv 1911.13299).
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from maskedconv.methods import LayerFactory
from maskedconv.models.checks import check_width, scaled
from maskedconv.models.conv import RECIPE as CONV_RECIPE
from maskedconv.models.data_shape import DataShape
from maskedconv.models.initialisation import he_normal_
from maskedconv.models.layers import global_average, make_activation, projection

RECIPE = replace(CONV_RECIPE, batch_size=256, weight_decay=5e-4)
_CHANNELS = (64, 128, 256, 512)


class _Block(nn.Module):
    """conv-norm-activation-conv-norm plus a shortcut, then the activation."""

    def __init__(
        self, make: LayerFactory, channels: int, filters: int, stride: int, activation: str
    ) -> None:
        super().__init__()
        self.conv1 = make.conv(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.bn1 = make.norm(filters)
        self.conv2 = make.conv(filters, filters, 3, padding=1, bias=False)
        self.bn2 = make.norm(filters)
        self.shortcut = projection(make, channels, filters, stride) or nn.Identity()
        self.activation1, self.activation2 = (make_activation(activation) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.activation1(self.bn1(self.conv1(x)))))
        return self.activation2(out + self.shortcut(x))


class ResNet18(nn.Module):
    """conv1-norm-activation, four groups of two blocks (64 to 512 channels), average pool, fc.

    ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``.

    Args:
        make: creates the layers, shortcuts included.
        width: multiplies every number of channels.
        activation: "relu", or "sign" for binary activations.
    """

    def __init__(
        self,
        make: LayerFactory,
        data: DataShape,
        *,
        width: float = 1.0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_width(width)
        sizes = [scaled(channels, width) for channels in _CHANNELS]

        def group(index: int) -> nn.Sequential:
            before, filters = sizes[max(0, index - 1)], sizes[index]
            first = _Block(make, before, filters, 2 if index else 1, activation)
            return nn.Sequential(first, _Block(make, filters, filters, 1, activation))

        self.conv1 = make.conv(data.in_channels, sizes[0], 3, padding=1, bias=False)
        self.bn1 = make.norm(sizes[0])
        self.activation = make_activation(activation)
        self.block1, self.block2, self.block3, self.block4 = map(group, range(4))
        self.fc = make.linear(sizes[-1], data.num_classes, bias=False)
        he_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.bn1(self.conv1(x)))
        for block in (self.block1, self.block2, self.block3, self.block4):
            x = block(x)
        return self.fc(global_average(x))
