"""explain: what ran for a layer, and why not something else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import maskedconv
from maskedconv.ops import native

x = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last)


def layer_of(**options):
    return maskedconv.MaskedConv2d(8, 12, 3, **{"learned": 2, **options})


def test_names_the_backend_of_each_operator():
    expected = "reference" if native.module() is None else "native"
    choices = maskedconv.explain(layer_of(), x)
    assert [(c.operator, c.backend) for c in choices] == [
        ("pack_filters", "reference"), ("weight_grad", expected),
    ]  # fmt: skip
    assert "by the table for the CPU" in str(choices)


def test_says_why_another_cannot_run():
    text = str(maskedconv.explain(layer_of(slice_dim=1), x))
    assert "weight_grad: reference" in text
    if native.module() is not None:
        assert "not native: its kernel is for slices of the output filters" in text


def test_a_forced_backend_is_named(monkeypatch):
    monkeypatch.setenv("MASKEDCONV_BACKEND", "reference")
    choices = maskedconv.explain(layer_of(), x)
    assert {c.backend for c in choices} == {"reference"}
    assert "forced by MASKEDCONV_BACKEND" in str(choices)
    choices = maskedconv.explain(layer_of(backend="reference"), x)
    assert "forced by the argument backend" in str(choices)
    monkeypatch.setenv("MASKEDCONV_BACKEND", "native")
    with pytest.raises(RuntimeError, match="which cannot run"):
        maskedconv.explain(layer_of(slice_dim=1), x)


def test_nothing_to_choose_and_nothing_changed():
    plain = nn.Conv2d(8, 12, 3)
    assert "nothing to choose" in str(maskedconv.explain(plain, x))
    layer = layer_of()
    maskedconv.explain(layer, x)
    assert layer.learned.grad is None
    with torch.no_grad():
        assert len(maskedconv.explain(nn.Sequential(layer), x)) == 2
