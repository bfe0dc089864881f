"""The layers: MaskedConv2d, supermasks, and BatchNorm, ReLU and convolution as one module.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "BNReLUConv2d": "bn_relu_conv2d",
    "BipropConv2d": "biprop",
    "BipropEmbedding": "biprop",
    "BipropLinear": "biprop",
    "MaskedConv2d": "masked_conv2d",
    "SupermaskConv2d": "supermask",
    "SupermaskEmbedding": "supermask_embedding",
    "SupermaskLinear": "supermask",
    "bn_relu": "bn_relu_conv2d",
    "bn_relu_conv": "bn_relu_conv2d",
    "bn_relu_convs": "bn_relu_conv2d",
    "sum_bn_relu_convs": "bn_relu_conv2d",
}

__all__ = [
    "BNReLUConv2d",
    "BipropConv2d",
    "BipropEmbedding",
    "BipropLinear",
    "MaskedConv2d",
    "SupermaskConv2d",
    "SupermaskEmbedding",
    "SupermaskLinear",
    "bn_relu",
    "bn_relu_conv",
    "bn_relu_convs",
    "sum_bn_relu_convs",
]

if TYPE_CHECKING:
    from maskedconv.nn.biprop import BipropConv2d, BipropEmbedding, BipropLinear
    from maskedconv.nn.bn_relu_conv2d import (
        BNReLUConv2d,
        bn_relu,
        bn_relu_conv,
        bn_relu_convs,
        sum_bn_relu_convs,
    )
    from maskedconv.nn.masked_conv2d import MaskedConv2d
    from maskedconv.nn.supermask import SupermaskConv2d, SupermaskLinear
    from maskedconv.nn.supermask_embedding import SupermaskEmbedding


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
