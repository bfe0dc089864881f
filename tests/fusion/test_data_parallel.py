"""Fused models under DistributedDataParallel and FSDP2, in one process."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from maskedconv import convert_, fuse_

IMAGES = torch.randn(2, 3, 12, 12)


@pytest.fixture
def _group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def block(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU())


def gradients(wrapped: nn.Module) -> list[torch.Tensor]:
    for _ in range(2):
        wrapped(IMAGES).square().sum().backward()
    grads = [parameter.grad for parameter in wrapped.parameters()]
    return [grad.full_tensor() if hasattr(grad, "full_tensor") else grad for grad in grads]


def sharded(model: nn.Module) -> nn.Module:
    """Shards each block separately, so that the parameters of a norm are freed after its block."""
    mesh = init_device_mesh("cpu", (1,))
    for child in model:
        fully_shard(child, mesh=mesh)
    return fully_shard(model, mesh=mesh)


@pytest.mark.usefixtures("_group")
@pytest.mark.parametrize("is_converted", [False, True])
@pytest.mark.parametrize("wrap", [DistributedDataParallel, sharded])
def test_same_gradients(wrap, is_converted):
    plain = nn.Sequential(block(3), block(8), nn.Conv2d(8, 2, 3))
    if is_converted:
        convert_(plain, learned=0.25, seed=0)
    fused = copy.deepcopy(plain)
    fuse_(fused, IMAGES)
    for ours, others in zip(gradients(wrap(fused)), gradients(wrap(plain)), strict=True):
        assert torch.equal(ours, others)
