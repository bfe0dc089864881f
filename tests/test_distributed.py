"""DDP and FSDP2 keep the layer intact: two processes on the CPU learn what one would."""

from __future__ import annotations

import copy
import os

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from maskedconv import MaskedConv2d

STEPS = 3


def network():
    return nn.Sequential(
        MaskedConv2d(3, 8, 3, padding=1, learned=0.5, seed=1),
        nn.ReLU(),
        MaskedConv2d(8, 4, 3, learned=0, seed=2),
        nn.ReLU(),
        MaskedConv2d(4, 4, 3, learned=2, slice_dim=1, seed=3),
    ).double()


def learn(model, batches):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for batch in batches:
        optimiser.zero_grad()
        model(batch).square().mean().backward()
        optimiser.step()


def all_batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, 8, 8, generator=generator).double() for _ in range(STEPS)]


def worker(rank, wrap, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = network()
    start = copy.deepcopy(model)
    if wrap == "ddp":
        wrapped = DistributedDataParallel(model)
    else:
        mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
        wrapped = fully_shard(model, mesh=mesh)
    learn(wrapped, [batch[rank * 2 : rank * 2 + 2] for batch in all_batches()])
    state = {
        key: value.full_tensor() if hasattr(value, "full_tensor") else value
        for key, value in model.state_dict().items()
    }
    dist.destroy_process_group()
    alone = start
    learn(alone, all_batches())
    for key, expected in alone.state_dict().items():
        if "frozen" in key:
            assert torch.equal(state[key], expected), key
        else:
            torch.testing.assert_close(state[key], expected)


@pytest.mark.parametrize("wrap", ["ddp", "fsdp2"])
def test_two_processes_learn_what_one_would(wrap, tmp_path):
    torch.multiprocessing.spawn(worker, args=(wrap, str(tmp_path)), nprocs=2)
