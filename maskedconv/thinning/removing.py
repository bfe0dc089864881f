"""Takes channels out of layers, in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from maskedconv.thinning.analysis import Analysis, Read
from maskedconv.thinning.channels import is_norm, shows_border, taps


def remove_(analysis: Analysis) -> bool:
    """Removes all channels that can be; returns whether there were any."""
    found = False
    for read in analysis.reads:
        gone = analysis.groups.removable(read.result.ids)
        source = read.source.ids if read.source is not None else torch.zeros(0, dtype=torch.long)
        unread = analysis.groups.removable(source)
        if not gone.any() and not unread.any():
            # It may share its weight with another layer.
            continue
        found = True
        if is_norm(read.layer):
            _narrow_norm(read.layer, ~gone)
        elif getattr(read.layer, "groups", 1) > 1:
            _narrow_groups(read.layer, ~gone)
        else:
            _narrow(read, unread, ~gone)
    return found


def _narrow_norm(norm: Any, stay: Tensor) -> None:
    stay = stay.to(norm.running_mean.device)
    norm.num_features = int(stay.sum())
    for key in ("weight", "bias"):
        if (own := getattr(norm, key)) is not None:
            setattr(norm, key, nn.Parameter(own[stay], own.requires_grad))
    norm.running_mean, norm.running_var = norm.running_mean[stay], norm.running_var[stay]


def _narrow_groups(layer: Any, stay: Tensor) -> None:
    rows = layer.out_channels // layer.groups
    _set(layer, layer.weight, layer.bias, stay)
    layer.groups = layer.out_channels // rows
    layer.in_channels = layer.groups * layer.weight.size(1)


def _narrow(read: Read, gone: Tensor, stay: Tensor) -> None:
    weight, bias = read.layer.weight.detach(), read.layer.bias
    if read.source is not None:
        values = read.source.values.to(weight).nan_to_num(0)
        gone = gone.to(weight.device)
        if values[gone].any() and shows_border(read.layer):
            share = values[gone] / values[read.carrier]
            weight = weight.clone()
            weight[:, read.carrier] += (taps(weight[:, gone]).movedim(1, 2) @ share).reshape(
                weight[:, read.carrier].shape
            )
        elif values[gone].any():
            share = taps(weight[:, gone]).sum(2) @ values[gone]
            bias = share if bias is None else bias + share
        weight = weight[:, ~gone]
    _set(read.layer, weight, bias, stay)
    if isinstance(read.layer, nn.Linear):
        read.layer.out_features, read.layer.in_features = read.layer.weight.shape
    else:
        read.layer.in_channels = read.layer.weight.size(1)


def _set(layer: Any, weight: Tensor, bias: Tensor | None, stay: Tensor) -> None:
    """Gives a layer the rows that stay."""
    learns = layer.weight.requires_grad
    stay = stay.to(weight.device)
    layer.weight = nn.Parameter(weight[stay], learns)
    layer.bias = None if bias is None else nn.Parameter(bias[stay], learns)
    if not isinstance(layer, nn.Linear):
        layer.out_channels = layer.weight.size(0)
