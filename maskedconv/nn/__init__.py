"""The layers: MaskedConv2d, supermasks, and BatchNorm, ReLU and convolution as one module."""

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
