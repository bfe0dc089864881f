"""The scales of BatchNorms in the row of a run."""

from __future__ import annotations

from dataclasses import replace

import torch
from killed_runs import SMALL, small_dataset
from torch import nn

from maskedconv.runs.execute import execute
from maskedconv.runs.norms import BINS, describe_norms


def test_the_scales_of_all_norms():
    """Bins of 0.05 from -1 to 2; the 21st begins at 0, and the outer ones take the rest."""
    model = nn.Sequential(nn.BatchNorm2d(5), nn.BatchNorm2d(2, affine=False), nn.BatchNorm2d(1))
    model[0].weight.data = torch.tensor([0.009, -0.009, 0.011, -3.0, 5.0])
    found = describe_norms(model)
    assert found["small"] == 2
    expected = {0: 1, 19: 1, 20: 2, 40: 1, BINS - 1: 1}
    assert found["counts"] == [expected.get(place, 0) for place in range(BINS)]
    model.requires_grad_(False)
    assert describe_norms(model) is None


def test_a_row_has_the_scales_before_and_after_the_training():
    found = execute(replace(SMALL, keep=False, epochs=1), small_dataset())["norms"]
    before, after = found["before"]["counts"], found["after"]["counts"]
    # Each is 1 at first, which lies two thirds of the way from -1 to 2.
    assert sum(before) == sum(after) == before[2 * BINS // 3]
    assert after != before
