"""Checkpoints of layers whose learned indices are not the first ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from maskedconv import MaskedConv2d, load, save


def _plain() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(4, 6, 3)


def _model(*which: list[int] | None, dim: int = 0) -> nn.Sequential:
    convs = [
        MaskedConv2d.from_conv2d(_plain(), learned=2, slice_dim=dim, which=one) for one in which
    ]
    return nn.Sequential(*convs)


@pytest.mark.parametrize("dim", range(4))
def test_restores_the_indices_of_each_layer(dim: int, tmp_path: Path) -> None:
    model = _model([1, 2], None, [0, 2], [1, 2], dim=dim)
    for layer in model:
        nn.init.normal_(layer.learned)
    save(model, tmp_path / "a.safetensors")
    plain = nn.Sequential(*(_plain() for _ in model))
    load(plain, tmp_path / "a.safetensors")
    for old, new in zip(model, plain, strict=True):
        assert new.which == old.which
        assert torch.equal(new.weight, old.weight)


def test_refuses_a_model_with_other_indices(tmp_path: Path) -> None:
    save(_model([1, 2]), tmp_path / "a.safetensors")
    other = _model([3, 4])
    before = other[0].weight.clone()
    with pytest.raises(ValueError, match="which"):
        load(other, tmp_path / "a.safetensors")
    assert torch.equal(other[0].weight, before)
