"""Published networks: conversion changes no bit of their output, and merging restores them."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from bench.conversions import METHODS, compare
from bench.published import BUILDERS, SUBCLASSES, build, example, output
from maskedconv import MaskedConv2d, conversion_report, convert_, merge_


def convert(model: nn.Module, slice_dim: int) -> str:
    """Converts the model; returns the warning or error that names skipped layers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            convert_(model, learned=2 if slice_dim else 0.5, slice_dim=slice_dim, rest="learn")
        except ValueError as error:
            return str(error)
    return " ".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize("name", BUILDERS)
@torch.no_grad()
def test_output_is_the_same_to_the_bit(name):
    model, x = build(name), example(name)
    types = {n: type(m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    expected = output(model, x)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    said = convert(model, slice_dim=list(BUILDERS).index(name) % 4)

    kind, count = SUBCLASSES.get(name, ("", 0))
    report = conversion_report(model)
    assert len(report.left_alone) == count
    assert set(report.converted) | set(report.left_alone) == set(types)
    for layer, reason in report.left_alone.items():
        assert types[layer].__name__ == kind
        assert reason == f"a subclass of Conv2d: {kind}"
    assert (f"a subclass of Conv2d: {kind}" in said) if count else not said
    for layer in report.converted:
        assert types[layer] is nn.Conv2d
        assert type(model.get_submodule(layer)) is MaskedConv2d
    assert expected.isfinite().all()
    assert torch.equal(output(model, x), expected)

    merged = merge_(model).state_dict()
    assert list(merged) == list(state)
    assert all(torch.equal(merged[key], value) for key, value in state.items())
    assert all(type(model.get_submodule(layer)) is kind for layer, kind in types.items())
    assert torch.equal(output(model, x), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["ghostnet_100", "resnet18d", "mask_head"])
def test_gradients_are_those_of_the_original(name, method):
    found = compare(name, METHODS[method])
    if found.report is None:
        assert (name, method) in {("mask_head", "supermask"), ("mask_head", "biprop")}
        assert "it has a bias" in found.refusal
        return
    assert found.same_output
    assert found.merged
    # Sums of float32 in another order; the largest of 43 networks is 100 times smaller.
    assert found.gradient_error < 1e-4
