"""VGG-Small, the network of the literature on binary networks.

Sizes, training and the lack of biases follow Diffenderfer & Kailkhura 2021 (arXiv 2103.09377).
"""

from __future__ import annotations

from torch import Tensor, nn

from maskedconv.methods import LayerFactory
from maskedconv.models.checks import check_width, scaled
from maskedconv.models.conv import RECIPE as CONV_RECIPE
from maskedconv.models.data_shape import DataShape
from maskedconv.models.initialisation import he_normal_
from maskedconv.models.layers import make_activation, max_pool

RECIPE = CONV_RECIPE
_CHANNELS = (128, 256, 512)


class VGGSmall(nn.Module):
    """Three pairs of 3×3 convolutions with BatchNorm, a max-pool after each pair, fc; no biases.

    ``[N, in_channels, image_size, image_size]`` to logits ``[N, num_classes]``. The last activation
    is a ReLU. A max-pool that would shrink a 1×1 map is left out.

    Args:
        make: creates the layers.
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
        channels, size = data.in_channels, data.image_size
        check_width(width)
        layers: list[nn.Module] = []
        for out_channels in _CHANNELS:
            filters = scaled(out_channels, width)
            pool, size = max_pool(size)
            layers += [
                make.conv(channels, filters, 3, padding=1, bias=False),
                make.norm(filters),
                make_activation(activation),
                make.conv(filters, filters, 3, padding=1, bias=False),
                *pool,
                make.norm(filters),
                make_activation(activation),
            ]
            channels = filters
        layers[-1] = make_activation("relu")
        self.features = nn.Sequential(*layers)
        self.fc = make.linear(channels * size * size, data.num_classes, bias=False)
        he_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).flatten(1))
