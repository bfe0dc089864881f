"""Norms alone as the only learned parameters."""

from __future__ import annotations

import torch
from torch import nn

from maskedconv import MaskedConv2d, count_parameters, load, methods, models, save
from maskedconv.checkpoint import file
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.positions import PositionsLinear


def test_norms_alone():
    model = models.create("resnet_14", method=methods.norm_only(), seed=0)
    counted = count_parameters(model)
    assert (counted.learned, counted.total) == (1120, 175_258)
    types = {type(module) for module in model.modules() if isinstance(module, PartlyLearned)}
    assert types == {MaskedConv2d, PositionsLinear}
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(x), models.create("resnet_14", seed=0).eval()(x))


def test_a_norm_only_checkpoint_is_small(tmp_path):
    model = models.create("resnet_14", seed=0, method=methods.norm_only())
    save(model, tmp_path / "file")
    stored = file.read(tmp_path / "file").tensors
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(t.numel() for t in stored.values()) == sum(4 * m.num_features + 1 for m in norms)
    other = models.create("resnet_14", seed=1, method=methods.norm_only())
    load(other, tmp_path / "file")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(other.eval()(x), model.eval()(x))
