"""Conv2, 4, 6 and 8: the small VGG-like networks of the supermask literature.

Source: Frankle & Carbin 2018 (arXiv 1803.03635). Sizes, training and the lack of biases follow
Ramanujan et al. 2019 (arXiv 1911.13299).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from maskedconv.methods import LayerFactory
from maskedconv.models.checks import check_width, scaled
from maskedconv.models.data_shape import DataShape
from maskedconv.models.initialisation import draw_weight_, he_normal_
from maskedconv.models.layers import max_pool
from maskedconv.models.recipe import Recipe

# Ramanujan et al. 2019, section 4 (CIFAR-10).
RECIPE = Recipe(
    epochs=100,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(),
    gamma=1.0,
    schedule="cosine",
)

_CHANNELS = (64, 128, 256, 512)
_HIDDEN = 256


class ConvNet(nn.Module):
    """Pairs of 3×3 convolutions, a max-pool after each pair, three fully connected layers.

    ``[N, in_channels, image_size, image_size]`` to logits ``[N, num_classes]``; no biases, no
    BatchNorm. A max-pool that would shrink a 1×1 map is left out.

    Args:
        make: creates the layers.
        blocks: pairs of convolutions, 1 to 4; the network's name contains 2 * blocks.
        width: multiplies every number of channels and hidden units.
    """

    def __init__(
        self,
        make: LayerFactory,
        data: DataShape,
        *,
        blocks: int,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        channels, size = data.in_channels, data.image_size
        check_width(width)
        layers: list[nn.Module] = []
        for out_channels in _CHANNELS[:blocks]:
            filters = scaled(out_channels, width)
            for _ in range(2):
                layers += [
                    make.conv(channels, filters, 3, padding=1, bias=False),
                    nn.ReLU(inplace=True),
                ]
                channels = filters
            pool, size = max_pool(size)
            layers += pool
        self.features = nn.Sequential(*layers)
        hidden = scaled(_HIDDEN, width)
        self.fc = nn.Sequential(
            make.linear(channels * size * size, hidden, bias=False),
            nn.ReLU(inplace=True),
            make.linear(hidden, hidden, bias=False),
            nn.ReLU(inplace=True),
            make.linear(hidden, data.num_classes, bias=False),
        )
        he_normal_(self)
        for layer in list(self.fc)[::2]:
            draw_weight_(layer, partial(nn.init.kaiming_normal_, nonlinearity="relu"))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).flatten(1))
