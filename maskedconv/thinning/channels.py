"""Channels of a tensor, and the layers and functions that pass them on."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTED = (*CONVOLUTIONS, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ELEMENTWISE = (
    nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus,
    nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip
ELEMENTWISE_FUNCTIONS = (
    F.relu, torch.relu, F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish,
    F.sigmoid, torch.sigmoid, torch.tanh, F.hardswish, F.hardsigmoid,
    "relu", "relu_", "sigmoid", "sigmoid_", "tanh",
)  # fmt: skip
# A constant stays the same constant. Maximum pooling pads with minus infinity.
SAME = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.MaxPool1d, nn.MaxPool2d,
    nn.MaxPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool2d,
)  # fmt: skip
SAME_FUNCTIONS = (F.max_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d)
AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
AVERAGE_FUNCTIONS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")


class Channels(NamedTuple):
    """Numbers ``[C]`` of a tensor's channels in ``Groups``, and their values ``[C]``.

    The value is that of every pixel of every image; NaN if there is no such constant.
    """

    ids: Tensor
    values: Tensor

    @property
    def varying(self) -> Tensor:
        """Whether each channel is not constant, ``[C]``."""
        return self.values.isnan()


def is_norm(layer: nn.Module) -> bool:
    """Whether a layer is a BatchNorm, or derives from it without further tensors.

    Such classes keep the statistics fixed, or include the activation (timm's ``BatchNormAct2d``).
    """
    own = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return isinstance(layer, _NORMS) and all(name in own for name in layer.state_dict())


def shows_border(layer: nn.Module) -> bool:
    """Whether a layer pads its input with zeros, beside which a constant is no longer constant."""
    if not isinstance(layer, CONVOLUTIONS) or layer.padding_mode != "zeros":
        return False
    padding = layer.padding
    if isinstance(padding, str):
        return padding == "same" and any(size > 1 for size in layer.kernel_size)
    return any(padding if isinstance(padding, tuple) else (padding,))


def keeps_averages(pooling: nn.Module) -> bool:
    """Whether a layer is an average pooling that returns a constant as it is."""
    return isinstance(pooling, AVERAGES) and _is_plain_average(
        pooling.padding, getattr(pooling, "divisor_override", None)
    )


def averages_windows(call: fx.Node) -> bool:
    """Whether a call is an average pooling that returns a constant as it is."""
    return call.target in AVERAGE_FUNCTIONS and _is_plain_average(
        argument(call, 3, "padding"), argument(call, 6, "divisor_override")
    )


def _is_plain_average(padding: Any, divisor: int | None) -> bool:
    return divisor is None and not any(padding if isinstance(padding, tuple) else (padding,))


def taps(weight: Tensor) -> Tensor:
    """A weight ``[O, I, ...]`` with all positions of the kernel in one dimension, ``[O, I, K]``."""
    return weight.flatten(2) if weight.dim() > 2 else weight.unsqueeze(2)


def is_read(layer: Any) -> Tensor:
    """Whether a layer without groups has a weight other than zero for each channel, ``[I]``."""
    return (taps(layer.weight) != 0).any(2).any(0).cpu()


def constants(layer: Any, source: Tensor) -> Tensor:
    """Constants ``[O]`` that a layer returns for those that it reads, ``[I]``; NaN if none."""
    weight = taps(layer.weight).cpu()
    groups = getattr(layer, "groups", 1)
    read = source.reshape(groups, -1).repeat_interleave(len(weight) // groups, 0)
    varying = read.isnan() | (read != 0) if shows_border(layer) else read.isnan()
    values = (weight.sum(2) * torch.where(varying, 0, read)).sum(1)
    if layer.bias is not None:
        values = values + layer.bias.cpu()
    return torch.where(((weight != 0).any(2) & varying).any(1), torch.nan, values)


def name_of(node: fx.Node) -> str:
    """The layer that a node calls; or a function's name with that of the module that calls it."""
    if node.op == "call_module":
        return str(node.target)
    function = node.target if isinstance(node.target, str) else node.target.__name__
    modules = list(node.meta.get("nn_module_stack", {}))
    return f"{modules[-1]} ({function})" if modules else function


def argument(node: fx.Node, position: int, name: str) -> Any:
    """An argument of a call, by its position or name; None if it is not given."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)
