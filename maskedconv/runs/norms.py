"""The scales γ of a network's BatchNorms, as its row describes them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskedconv.runs.row import NormsPart, NormsRow

# Histogram of γ; values beyond the bounds count in the first and the last bin.
LOW, HIGH, BINS = -1.0, 2.0, 60
SMALL = 0.01  # |γ| below it disables a feature (Frankle, Schwab & Morcos 2020)


def describe_norms(model: nn.Module) -> NormsPart | None:
    """Histogram of γ, and the number of |γ| < .01; None if no γ is learned."""
    scales = [
        module.weight
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.affine
    ]
    if not any(scale.requires_grad for scale in scales):
        return None
    values = torch.cat([scale.detach().flatten() for scale in scales]).double().cpu()
    counts = torch.histc(values.clamp(LOW, HIGH), BINS, LOW, HIGH)
    return {"counts": [int(n) for n in counts], "small": int((values.abs() < SMALL).sum())}


def norms_row(before: NormsPart | None, after: NormsPart | None) -> NormsRow | None:
    """Both parts with the bounds of their histograms; None if there are none."""
    if before is None or after is None:
        return None
    return {"low": LOW, "high": HIGH, "before": before, "after": after}
