"""The layers: MaskedConv2d, and BatchNorm, ReLU and convolution as one module."""

from maskedconv.nn.bn_relu_conv2d import BNReLUConv2d, bn_relu, bn_relu_conv, bn_relu_convs
from maskedconv.nn.masked_conv2d import MaskedConv2d

__all__ = ["BNReLUConv2d", "MaskedConv2d", "bn_relu", "bn_relu_conv", "bn_relu_convs"]
