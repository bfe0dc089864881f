"""DDP and FSDP2 keep the layer intact: two CPU processes learn the same as one."""

from __future__ import annotations

import copy
import os
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from two_processes import Traffic

from maskedconv import MaskedConv2d, methods
from maskedconv.nn.positions import PositionsConv2d

STEPS = 3


def network():
    return nn.Sequential(
        MaskedConv2d(3, 8, 3, padding=1, learned=0.5, seed=1),
        nn.ReLU(),
        MaskedConv2d(8, 4, 3, learned=0, seed=2),
        nn.ReLU(),
        MaskedConv2d(4, 4, 3, learned=2, slice_dim=1, seed=3),
    ).double()


def network_of_positions():
    """Its last layer learns nothing, and so does its bias."""
    layers = [PositionsConv2d(3, 8, 3), PositionsConv2d(8, 4, 3, bias=False)]
    layers += [PositionsConv2d(4, 2, 1)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in layers:
            nn.init.normal_(layer.weight)
            if layer.bias is not None:
                nn.init.normal_(layer.bias)
    methods.random_positions(20).finish(layers[:2], 3)
    return nn.Sequential(*layers).double()


def learn(model, batches):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for batch in batches:
        optimiser.zero_grad()
        model(batch).square().mean().backward()
        optimiser.step()


def all_batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, 8, 8, generator=generator).double() for _ in range(STEPS)]


def leave():
    """Ends this process like its peer, because PyTorch's teardown of a group may abort or hang."""
    dist.barrier()
    os._exit(0)


def worker(rank, wrap, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    positions = wrap.startswith("positions")
    model = network_of_positions() if positions else network()
    start = copy.deepcopy(model)
    if positions and rank == 1:  # which gets those of the first process
        for layer in model[:2]:
            layer.learn_((layer.frozen.numel() - 1 - layer.positions).flip(0))
    if wrap != "fsdp2":
        wrapped = DistributedDataParallel(model)
    else:
        mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
        wrapped = fully_shard(model, mesh=mesh)
    called = torch.compile(wrapped, backend="eager") if "compiled" in wrap else wrapped
    learn(called, [batch[rank * 2 : rank * 2 + 2] for batch in all_batches()])
    state = {
        key: value.full_tensor() if hasattr(value, "full_tensor") else value
        for key, value in model.state_dict().items()
    }
    alone = start
    learn(alone, all_batches())
    for key, expected in alone.state_dict().items():
        if "frozen" in key:
            assert torch.equal(state[key], expected), key
        else:
            torch.testing.assert_close(state[key], expected)
    leave()


@pytest.mark.parametrize("wrap", ["ddp", "fsdp2", "positions", "positions, compiled"])
def test_two_processes_learn_what_one_would(wrap, tmp_path):
    torch.multiprocessing.spawn(worker, args=(wrap, str(tmp_path)), nprocs=2)


# Bytes that DistributedDataParallel and FSDP2 send.


def bigger_network(seed):
    """A nested module with BatchNorm and a layer in two places."""
    shared = MaskedConv2d(8, 8, 3, padding=1, learned=0.25, seed=seed)
    block = nn.Sequential(shared, nn.BatchNorm2d(8), nn.ReLU(), shared)
    return nn.Sequential(
        MaskedConv2d(3, 8, 3, padding=1, learned=2, seed=seed), nn.ModuleDict({"a": block})["a"],
        MaskedConv2d(8, 8, 1, learned=0, seed=seed), nn.Conv2d(8, 2, 1),
    )  # fmt: skip


def join(rank, folder):
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(folder, "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)


def sizes(model):
    learned = sum(p.nbytes for p in model.parameters())
    frozen = sum(b.nbytes for m in model.modules() if isinstance(m, MaskedConv2d)
                 for b in m.buffers(recurse=False))  # fmt: skip
    return learned, frozen, sum(b.nbytes for b in model.buffers()) - frozen


def traffic_worker(rank, compiled, folder):
    join(rank, folder)
    model = bigger_network(seed=rank)  # other filters in each process
    learned, frozen, statistics = sizes(model)
    with Traffic() as start:
        wrapped = DistributedDataParallel(model)
    assert start.bytes["broadcast_"] >= learned + frozen + statistics
    other = bigger_network(seed=0)
    for name, buffer in other.named_buffers():
        if "frozen" in name:
            assert torch.equal(model.get_buffer(name), buffer), name
    versions = [b._version for name, b in model.named_buffers() if "frozen" in name]
    called = torch.compile(wrapped, backend="eager") if compiled else wrapped
    for step in range(3):
        with nullcontext(Traffic()) if compiled else Traffic() as traffic:
            called(torch.randn(2, 3, 8, 8)).sum().backward()
        if not compiled:
            # In the second step it also sends the order of its buckets, a few numbers.
            extra = traffic.bytes["broadcast_"] - statistics
            assert traffic.bytes["allreduce_"] == learned, traffic.bytes
            assert 0 <= extra <= 64 * (step == 1), (step, traffic.bytes)
    assert versions == [b._version for name, b in model.named_buffers() if "frozen" in name]
    assert not wrapped._forward_pre_hooks
    copy.deepcopy(model)
    leave()


@pytest.mark.parametrize("compiled", [False, True])
def test_data_parallel_sends_the_learned_share(compiled, tmp_path):
    torch.multiprocessing.spawn(traffic_worker, args=(compiled, str(tmp_path)), nprocs=2)


def fsdp_traffic_worker(rank, folder):
    join(rank, folder)
    model = bigger_network(seed=0)
    learned, frozen, _ = sizes(model)
    sharded = fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (2,)))
    sharded(torch.randn(2, 3, 8, 8)).sum().backward()
    with Traffic() as traffic:
        sharded(torch.randn(2, 3, 8, 8)).sum().backward()
    # All-gathered for forward, reduced in backward; uneven shards are padded.
    assert traffic.bytes, "nothing was counted"
    assert sum(traffic.bytes.values()) <= 2 * learned + frozen / 2
    leave()


def test_fsdp2_sends_the_learned_share(tmp_path):
    torch.multiprocessing.spawn(fsdp_traffic_worker, args=(str(tmp_path),), nprocs=2)
