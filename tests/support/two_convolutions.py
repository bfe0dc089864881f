"""A network of two convolutions and a classifier, for tests of conversion."""

from __future__ import annotations

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.conv2(self.conv1(x).relu()).mean((2, 3)))
