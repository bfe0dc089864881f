"""Layers that act when their mode changes, or that replace their buffers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Merging(nn.Linear):
    """Adds a product of learned factors to its weight for evaluation, as LoRA layers do."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.a = nn.Parameter(torch.randn(2, inputs))
        self.b = nn.Parameter(torch.randn(outputs, 2))
        self.merged = False
        self.weight.requires_grad_(False)

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (self.b @ self.a).data * (-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, input: Tensor) -> Tensor:
        result = super().forward(input)
        return result if self.merged else result + F.linear(F.linear(input, self.a), self.b)


class Averaging(nn.Module):
    """Subtracts a mean, which it replaces by another tensor in each pass, or changes in place."""

    def __init__(self, channels: int, *, in_place: bool, only_in_training: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.mean: Tensor
        self.in_place, self.only_in_training = in_place, only_in_training

    def forward(self, input: Tensor) -> Tensor:
        if self.training or not self.only_in_training:
            new = input.detach().mean((0, 2, 3), keepdim=True)
            if self.in_place:
                self.mean.lerp_(new, 0.1)
            else:
                self.mean = 0.9 * self.mean + 0.1 * new
        return input - self.mean
