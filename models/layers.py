"""Parts of several networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.checks import check_choice
from maskedconv.functional.batch_norm import is_plain_norm
from maskedconv.functional.binary import binary_sign
from maskedconv.methods import LayerFactory


def norm_relu(norm: nn.Module, input: Tensor) -> Tensor:
    """``relu(norm(input))``, in place if ``norm`` is a plain BatchNorm: its backward does not read
    its output. Another module may return its input, or a tensor that belongs to someone else.
    """
    return F.relu(norm(input), inplace=is_plain_norm(norm, input))


class Sign(nn.Module):
    """A binary activation; see :func:`maskedconv.functional.binary.binary_sign`."""

    def forward(self, input: Tensor) -> Tensor:
        return binary_sign(input)


def make_activation(name: str) -> nn.Module:
    """The activation "relu" or "sign"; ValueError for another name."""
    check_choice("activation", name, ("relu", "sign"))
    return nn.ReLU(inplace=True) if name == "relu" else Sign()


def projection(
    make: LayerFactory, in_channels: int, out_channels: int, stride: int
) -> nn.Sequential | None:
    """The 1×1 convolution and norm of a shortcut that changes the shape; None for the identity."""
    if in_channels == out_channels and stride == 1:
        return None
    conv = make.conv(in_channels, out_channels, 1, stride=stride, bias=False)
    return nn.Sequential(conv, make.norm(out_channels))


def global_average(features: Tensor) -> Tensor:
    """[N, C, H, W] to [N, C]."""
    return features.mean((2, 3))


def max_pool(size: int) -> tuple[list[nn.Module], int]:
    """A 2×2 max-pool for a ``size``×``size`` map, and the size of the map behind it.

    A 1×1 map has nothing left to pool: there is no layer then.
    """
    return ([nn.MaxPool2d(2)], size // 2) if size > 1 else ([], size)
