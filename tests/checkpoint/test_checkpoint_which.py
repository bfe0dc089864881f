"""Checkpoints of layers whose learned indices are not the first ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from damaged_checkpoints import parts_of, with_header
from torch import nn

from maskedconv import MaskedConv2d, load, merge_, save
from maskedconv.checkpoint import load_plain
from maskedconv.checkpoint.header import read_header


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


def test_load_plain_gives_the_weight_in_order(tmp_path: Path) -> None:
    model = _model([1, 2], None, [0, 3])
    save(model, tmp_path / "a.safetensors", frozen=True)
    values = load_plain(tmp_path / "a.safetensors")
    merged = merge_(model).state_dict()
    assert values.keys() == merged.keys()
    assert all(torch.equal(value, merged[key]) for key, value in values.items())


@pytest.mark.parametrize("which", [[0, 4], [4, 1], [1, 6], [0, 1], [1], [1, 2, 3]])
def test_refuses_a_header_with_other_indices(which: list[int], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(_model([1, 2]), path, frozen=True)
    layers = read_header(parts_of(path)[0]["maskedconv"], "")["layers"]
    layers["0"]["which"] = which
    path.write_bytes(with_header(path, lambda header: {**header, "layers": layers}))
    plain = nn.Sequential(_plain())
    for action in (lambda: load(plain, path), lambda: load_plain(path)):
        with pytest.raises(ValueError, match=r"a\.safetensors.*which"):
            action()
    assert type(plain[0]) is nn.Conv2d


def test_an_earlier_file_is_of_the_first_indices(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(_model(None), path)
    assert "which" not in parts_of(path)[0]["maskedconv"]
    assert load(nn.Sequential(_plain()), path)[0].which is None
    with pytest.raises(ValueError, match=r"which is None in the file; the model has \[1, 2\]"):
        load(_model([1, 2]), path)
