"""AlexNet for 32×32 images, with one fully connected layer (Rosenfeld & Tsotsos 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from maskedconv.methods import LayerFactory
from maskedconv.models.checks import check_width, scaled
from maskedconv.models.data_shape import DataShape
from maskedconv.models.layers import max_pool
from maskedconv.models.vgg import RECIPE as VGG_RECIPE

# The authors' runs (arXiv 1802.00844), whose reference for all weights has a learning rate of .01.
# According to the paper, the network fails at .1 if few of its filters are learned.
RECIPE = VGG_RECIPE

# out_channels, kernel_size, stride, padding, whether a max-pool follows
_LAYERS = (
    (64, 11, 4, 5, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)


class AlexNet(nn.Module):
    """Five convolutions with bias and no BatchNorm, three max-pools, fc; PyTorch's initialisation.

    ``[N, in_channels, image_size, image_size]`` to logits ``[N, num_classes]``. A max-pool that
    would shrink a 1×1 map is left out.

    Args:
        make: creates the layers.
        width: multiplies every number of channels.
    """

    def __init__(
        self,
        make: LayerFactory,
        data: DataShape,
        *,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        channels, size = data.in_channels, data.image_size
        check_width(width)
        layers: list[nn.Module] = []
        for out_channels, kernel_size, stride, padding, pooled in _LAYERS:
            filters = scaled(out_channels, width)
            layers += [
                make.conv(channels, filters, kernel_size, stride=stride, padding=padding),
                nn.ReLU(inplace=True),
            ]
            channels, size = filters, (size + 2 * padding - kernel_size) // stride + 1
            if pooled:
                pool, size = max_pool(size)
                layers += pool
        self.features = nn.Sequential(*layers)
        self.fc = make.linear(channels * size * size, data.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).flatten(1))
