"""The paper's networks in their usual form: BatchNorm, ReLU and convolution as modules."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _relu(bn: nn.Module, x: Tensor) -> Tensor:
    return F.relu(bn(x), inplace=True)


def plain_wrn(network: nn.Module, x: Tensor) -> Tensor:
    """The usual forward pass of a WideResNet, with the modules of ``network``."""
    x = network.conv1(x)
    for block in (*network.block1, *network.block2, *network.block3):
        out = _relu(block.bn1, x)
        shortcut = x if block.shortcut is None else block.shortcut(out)
        x = shortcut + block.conv2(_relu(block.bn2, block.conv1(out)))
    return network.fc(_relu(network.bn, x).mean((2, 3)))


def plain_densenet(network: nn.Module, x: Tensor) -> Tensor:
    """The usual forward pass of a DenseNet-BC, with the modules of ``network``."""

    def dense_block(block: nn.Module, x: Tensor) -> Tensor:
        for layer in block:
            new = layer.conv2(_relu(layer.bn2, layer.conv1(_relu(layer.bn1, x))))
            x = torch.cat((x, new), 1)
        return x

    def transition(layer: nn.Module, x: Tensor) -> Tensor:
        return F.avg_pool2d(layer.conv(_relu(layer.bn, x)), 2)

    x = transition(network.transition1, dense_block(network.block1, network.conv1(x)))
    x = transition(network.transition2, dense_block(network.block2, x))
    return network.fc(_relu(network.bn, dense_block(network.block3, x)).mean((2, 3)))


def plain_resnet(network: nn.Module, x: Tensor) -> Tensor:
    """The usual forward pass of a CIFAR ResNet, with the modules of ``network``."""
    x = _relu(network.bn1, network.conv1(x))
    for block in (*network.block1, *network.block2, *network.block3):
        shortcut = x if block.shortcut is None else block.shortcut(x)
        out = block.conv2(_relu(block.bn1, block.conv1(x)))
        x = F.relu(block.bn2(out) + shortcut, inplace=True)
    return network.fc(x.mean((2, 3)))


def plain_forward(name: str) -> Callable[[nn.Module, Tensor], Tensor]:
    """The usual forward pass of the network."""
    families = {"wrn": plain_wrn, "densenet": plain_densenet, "resnet": plain_resnet}
    return families[name.partition("_")[0]]


PLAIN = {"wrn_28_4": plain_wrn, "densenet_bc_100_12": plain_densenet}
