"""VGG-19 (Simonyan & Zisserman 2014, arXiv 1409.1556) with one fully connected layer."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from maskedconv.methods import LayerFactory
from maskedconv.models.checks import check_width, scaled
from maskedconv.models.data_shape import DataShape
from maskedconv.models.initialisation import draw_weight_, he_normal_
from maskedconv.models.layers import max_pool
from maskedconv.models.recipe import Recipe

# The authors' runs (arXiv 1802.00844). Without BatchNorm, the network trains with a learning rate
# of .01. Its failure at .1 is part of the paper's result.
RECIPE = Recipe(
    epochs=164,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(81, 122),
    gamma=0.1,
)

# out_channels and number of convolutions; a max-pool follows each stage
_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


class VGG19(nn.Module):
    """Sixteen 3×3 convolutions with bias (under BatchNorm too) in five stages, fc.

    ``[N, in_channels, image_size, image_size]`` to logits ``[N, num_classes]``. A max-pool that
    would shrink a 1×1 map is left out.

    Args:
        make: creates the layers.
        batch_norm: whether a BatchNorm follows each convolution.
        width: multiplies every number of channels.
        init: "he", or "default" for PyTorch's own; the fc layer is N(0, .01²) in both.
    """

    def __init__(
        self,
        make: LayerFactory,
        data: DataShape,
        *,
        batch_norm: bool,
        width: float = 1.0,
        init: str = "he",
    ) -> None:
        super().__init__()
        channels, size = data.in_channels, data.image_size
        check_width(width)
        layers: list[nn.Module] = []
        for out_channels, repeats in _STAGES:
            filters = scaled(out_channels, width)
            for _ in range(repeats):
                layers.append(make.conv(channels, filters, 3, padding=1))
                if batch_norm:
                    layers.append(make.norm(filters))
                layers.append(nn.ReLU(inplace=True))
                channels = filters
            pool, size = max_pool(size)
            layers += pool
        self.features = nn.Sequential(*layers)
        self.fc = make.linear(channels * size * size, data.num_classes)
        draw_weight_(self.fc, partial(nn.init.normal_, mean=0.0, std=0.01))
        if self.fc.bias is not None:
            nn.init.zeros_(self.fc.bias)
        if init == "he":
            he_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).flatten(1))
