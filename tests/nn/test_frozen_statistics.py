"""Norms keep frozen statistics in what PyTorch does to the norms of a model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torchvision.models.feature_extraction import create_feature_extractor

from maskedconv.nn.frozen_statistics import freeze_statistics_


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4)), nn.Conv2d(4, 2, 3))
    for tensor in (model[1][0].running_mean, model[1][0].running_var):
        nn.init.uniform_(tensor, 1, 2)
    freeze_statistics_(model[1][0])
    return model.train()


def images():
    torch.manual_seed(1)
    return torch.randn(4, 3, 8, 8)


def assert_kept(model, before):
    """Asserts that the norm is as it was, also after a forward pass in training mode."""
    model.train()(images())
    buffers = dict(model[1][0].named_buffers())
    assert buffers.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in buffers.items())


def statistics(model):
    return copy.deepcopy(dict(model[1][0].named_buffers()))


def test_update_bn():
    averaged = AveragedModel(network())
    averaged.update_parameters(network())
    before = statistics(averaged.module)
    momentum = averaged.module[1][0].momentum
    update_bn([images()], averaged)
    assert_kept(averaged.module, before)
    assert averaged.module[1][0].momentum == momentum


def test_reset_parameters():
    model = network()
    before = statistics(model)
    nn.init.normal_(model[1][0].weight)
    model[1][0].reset_parameters()
    assert_kept(model, before)
    assert model[1][0].weight.tolist() == [1] * 4


def test_convert_sync_batchnorm():
    model = network()
    model.append(nn.BatchNorm2d(2))
    norm, before = model[1][0], statistics(model)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert model[1][0] is norm
    assert type(model[3]) is nn.SyncBatchNorm
    model[3] = nn.Identity()
    assert_kept(model, before)


def test_another_synchronized_norm_takes_its_place():
    model = network()
    model[1][0] = nn.SyncBatchNorm(4)
    assert type(model[1][0]) is nn.SyncBatchNorm


@pytest.mark.parametrize("trace", ["symbolic_trace", "feature extractor"])
def test_tracing(trace):
    model = network()
    expected, before = model(images()), statistics(model)
    if trace == "symbolic_trace":
        traced = torch.fx.symbolic_trace(model)
        assert torch.equal(traced(images()), expected)
    else:
        traced = create_feature_extractor(model, {"1": "norm", "2": "out"})
        assert torch.equal(traced(images())["out"], expected)
    traced.train()(images())
    assert_kept(model, before)
