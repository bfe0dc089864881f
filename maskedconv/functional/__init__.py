"""The layers' computation as functions of tensors: argument checks and autograd.Functions."""

from maskedconv.functional.convolution import masked_conv2d

__all__ = ["masked_conv2d"]
