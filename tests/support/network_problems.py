"""weight_grad problems with the channels, pitches and filters of the networks."""

from __future__ import annotations

import torch
from test_weight_grad import SHAPES, make_problem

from maskedconv.ops.weight_grad import WeightGradProblem

# Kind of convolution, channels of input and view, filters learned, and pixels of an image's side.
# Dense inputs of C = 64, 160, 204 and pitches that are multiples of 8 take the widest copies.
NETWORK_SHAPES = {
    "first layer": ("3x3", 3, 3, 1, 32),
    "WRN-28-4 @32": ("3x3", 64, 64, 6, 32),
    "WRN-28-4 @8": ("3x3", 256, 256, 25, 8),
    "WRN-28-10 @32": ("3x3", 160, 160, 16, 32),
    "WRN-28-10 @32, stride 2": ("3x3/2", 160, 160, 32, 32),
    "WRN-28-10 @16": ("3x3", 320, 320, 32, 16),
    "WRN-28-10 @8": ("3x3", 640, 640, 64, 8),
    "WRN-28-10 shortcut": ("1x1/2", 320, 320, 64, 16),
    "DenseNet 1x1": ("1x1", 204, 204, 4, 32),
    "DenseNet 1x1, of a block": ("1x1", 204, 216, 4, 32),
    "DenseNet 1x1, odd view": ("1x1", 210, 216, 4, 16),
    "DenseNet 3x3": ("3x3", 48, 48, 1, 32),
    "DenseNet transition": ("1x1", 216, 216, 10, 32),
    "VGG @4": ("3x3", 512, 512, 51, 4),
    "AlexNet": ("11x11/4", 3, 3, 6, 32),
}


def network_problem(name, dtype, prologue, batch):
    kind, channels, pitch, filters, size = NETWORK_SHAPES[name]
    problem = make_problem(
        SHAPES[kind], pitch, filters, (size, size), batch, dtype=dtype, prologue=prologue
    )
    wide, grad = (t.contiguous(memory_format=torch.channels_last) for t in problem[:2])
    affine = (None if part is None else part[:channels] for part in problem[5:7])
    shape = torch.Size((filters, channels, *problem.shape[2:]))
    # An output of many more filters, a multiple of 8, as in the networks.
    whole = torch.zeros(batch, 8 * filters, *grad.shape[2:], dtype=dtype)
    whole = whole.to(memory_format=torch.channels_last)
    whole[:, : grad.size(1)] = grad
    return WeightGradProblem(wide[:, :channels], whole, shape, 0, problem.geometry, *affine)
