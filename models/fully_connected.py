"""The fully connected network of the MNIST experiments (LeNet-300-100, LeCun et al. 1998).

Training and the lack of biases follow Ramanujan et al. 2019 (arXiv 1911.13299).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from maskedconv.methods import LayerFactory
from maskedconv.models.checks import check_width, scaled
from maskedconv.models.conv import RECIPE as CONV_RECIPE
from maskedconv.models.data_shape import DataShape
from maskedconv.models.initialisation import draw_weight_

RECIPE = CONV_RECIPE


class LeNet300(nn.Module):
    """Fully connected layers of 300, 100 and ``num_classes`` units without biases.

    ``[N, in_channels, image_size, image_size]`` to logits ``[N, num_classes]``.

    Args:
        make: creates the layers.
        width: multiplies the hidden units.
    """

    def __init__(self, make: LayerFactory, data: DataShape, *, width: float = 1.0) -> None:
        super().__init__()
        check_width(width)
        inputs = data.in_channels * data.image_size**2
        hidden = scaled(300, width), scaled(100, width)
        self.fc = nn.Sequential(
            make.linear(inputs, hidden[0], bias=False),
            nn.ReLU(inplace=True),
            make.linear(hidden[0], hidden[1], bias=False),
            nn.ReLU(inplace=True),
            make.linear(hidden[1], data.num_classes, bias=False),
        )
        for layer in list(self.fc)[::2]:
            draw_weight_(layer, partial(nn.init.kaiming_normal_, nonlinearity="relu"))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))
