"""A small method: frozen filters, and one learned factor for each."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from maskedconv.methods import LayerFactory, Method
from maskedconv.nn.partly_learned import FrozenPart, PartlyLearned
from maskedconv.schema import count, list_of


class ScaledConv2d(PartlyLearned):
    """A frozen weight; one factor is learned for each filter."""

    method = "scale"
    num_learned = 1

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, **options):
        super().__init__()
        self.stride, self.padding, self.seed = stride, padding, options.get("seed")
        plain = nn.Conv2d(
            in_channels, out_channels, kernel_size, device=options.get("device"), bias=False
        )
        weight = plain.weight.detach()
        if self.seed is not None:
            weight.normal_(generator=torch.Generator().manual_seed(self.seed))
        self.weight_shape = tuple(weight.shape)
        self.register_buffer("directions", weight)
        start = torch.full_like(weight[:, :1, :1, :1], options.get("start", 1.0))
        self.scale = nn.Parameter(start)

    @property
    def weight(self):
        return self.scale * self.directions

    def forward(self, x):
        return F.conv2d(x, self.weight, None, self.stride, self.padding)

    @classmethod
    def examples(cls):
        return (cls(2, 2, 1, device="meta"),)

    @property
    def dtype(self):
        return self.scale.dtype

    def frozen_parts(self):
        return (FrozenPart(self.directions, self.directions.numel() - self.scale.numel()),)

    def frozen_buffers(self):
        return ("directions",)

    def learned_parts(self):
        return ()

    def weight_values(self):
        return self.scale.detach().flatten(), self.directions.flatten()

    def learned_filters(self):
        return 0

    def configuration(self):
        return {"weight_shape": list(self.weight_shape)}

    def drawn_from(self, seed):
        out_channels, in_channels, *size = self.weight_shape
        return ScaledConv2d(in_channels, out_channels, size, seed=seed)

    def to_frozen(self):
        frozen = copy.deepcopy(self)
        frozen.requires_grad_(False)
        return frozen

    def to_plain(self):
        out_channels, in_channels, *size = self.weight_shape
        plain = nn.Conv2d(in_channels, out_channels, size, self.stride, self.padding, bias=False)
        plain.weight.data.copy_(self.weight.detach())
        return plain


@dataclass(frozen=True)
class Scale(Method):
    """Learns a factor for each filter, which starts at ``start``."""

    start: float = 1.0

    name = "scale"
    layer = ScaledConv2d
    schema: ClassVar[dict[str, Any]] = {"weight_shape": list_of(count, 4)}

    def factory(self):
        return LayerFactory(conv=partial(ScaledConv2d, start=self.start))

    def convert(self, conv, seed):
        layer = ScaledConv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
        )
        layer.directions.copy_(conv.weight.detach())
        return layer

    @classmethod
    def restored(cls, plain, configuration):
        return cls().convert(plain, None)

    @staticmethod
    def mistake(configuration):
        return ""

    @staticmethod
    def stored_shapes(configuration):
        shape = configuration["weight_shape"]
        return {"directions": shape, "scale": [shape[0], 1, 1, 1]}

    @staticmethod
    def plain_values(configuration, stored):
        return {"weight": stored["scale"] * stored["directions"]}
