"""Two processes that train one network, by every method: DDP and FSDP2, in float64.

FSDP2 in mixed precision, too.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from two_processes import in_two_processes

from maskedconv import convert_, methods
from maskedconv.nn import SupermaskConv2d
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.rerandomise import rerandomise_

METHODS = {
    "slice": methods.slice(0.5),
    "slice_of_channels": methods.slice(0.5, slice_dim=1),
    "slice_at_random": methods.slice(0.5, which="random"),
    "zero": methods.slice(0.5, frozen="zero"),
    "norm_only": methods.norm_only(),
    "random_positions": methods.random_positions(40),
    "supermask": methods.supermask(k=0.3),
    "coats": methods.supermask(k=0.6, coats=3),
    "shared_threshold": methods.supermask(k=0.3, threshold="global"),
    "biprop": methods.biprop(k=0.3),
}
# A threshold of the network needs all scores at once, which only the root of FSDP2 gathers.
WAYS = ("ddp", "fsdp2", "fsdp2_of_layers")


def network(method):
    """Two convolutions and norms of fixed statistics, so that the images do not affect each other.

    A norm that computes its statistics from a process's images cannot equal one of all images.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(6)]
        for norm in norms:
            nn.init.uniform_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), norms[0], nn.ReLU(),
            nn.Conv2d(8, 6, 3, bias=False), norms[1], nn.Conv2d(6, 4, 1, bias=False),
        )  # fmt: skip
    return convert_(model.double().eval(), method=method, seed=1)


def images():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def backward(model, batch):
    model(batch).square().mean().backward()


def gradients(model):
    return {name: _whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}


def _whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.clone()


def frozen(model):
    return {
        f"{name}.{key}": buffer.clone()
        for name, layer in model.named_modules()
        if isinstance(layer, PartlyLearned)
        for key, buffer in layer.named_buffers(recurse=False)
    }


def wrapped(model, way):
    if way == "ddp":
        return DistributedDataParallel(model)
    mesh = init_device_mesh("cpu", (2,))
    if way == "fsdp2_of_layers":
        for layer in model:
            if any(True for _ in layer.parameters()):
                fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def sent_bytes(parallel):
    """Counts the bytes of the buckets that DDP reduces from now on."""
    sizes = []

    def hook(_, bucket):
        sizes.append(bucket.buffer().nbytes)
        summed = torch.distributed.all_reduce(bucket.buffer(), async_op=True).get_future()
        return summed.then(lambda done: done.value()[0] / 2)

    parallel.register_comm_hook(None, hook)
    return sizes


def one_step(rank, method, way):
    """Gradients and frozen values after one step, and bytes that DDP reduced; or the refusal."""
    model = network(method)
    parallel = wrapped(model, way)
    sizes = sent_bytes(parallel) if way == "ddp" else []
    try:
        backward(parallel, images()[2 * rank : 2 * rank + 2])
    except ValueError as error:
        return str(error)
    return gradients(model), frozen(model), sum(sizes)


def in_mixed_precision(rank, method):
    """Output and gradients of a float32 network that FSDP2 computes in bfloat16."""
    model = network(method).float()
    for norm in (one for one in model if isinstance(one, nn.BatchNorm2d)):
        # PyTorch's own takes no parameters and statistics of different types.
        norm.running_mean, norm.running_var = (b.bfloat16() for b in list(norm.buffers())[:2])
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)), mp_policy=policy)
    output = model(images().float()[2 * rank : 2 * rank + 2])
    output.float().square().mean().backward()
    return output.detach(), gradients(model)


def work(rank):
    found = {
        (way, name): one_step(rank, method, way) for way in WAYS for name, method in METHODS.items()
    }
    found |= {("mixed", name): in_mixed_precision(rank, method) for name, method in METHODS.items()}
    layer = fully_shard(SupermaskConv2d(2, 2, 1, bias=False, rerandomise_every=1))
    with pytest.raises(ValueError, match=r"rerandomise_every is 1; expected 0 under FSDP2"):
        rerandomise_(layer, 1, 0)
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return in_two_processes(work, tmp_path_factory.mktemp("group"))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("way", WAYS)
def test_step_is_that_of_the_whole_batch(results, way, name):
    alone = network(METHODS[name])
    start = frozen(alone)
    backward(alone, images())
    for result in (one[way, name] for one in results):
        if (way, name) == ("fsdp2_of_layers", "shared_threshold"):
            assert "threshold='global' needs the scores of all layers at once" in result
            continue
        found, kept, sent = result
        torch.testing.assert_close(found, gradients(alone))
        assert kept.keys() == start.keys()
        assert all(torch.equal(kept[key], value) for key, value in start.items())
        if way == "ddp":
            assert sent == sum(p.nbytes for p in alone.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", METHODS)
def test_mixed_precision_of_fsdp2(results, name):
    """It converts parameters and inputs, and no frozen values."""
    alone = network(METHODS[name]).float()
    # The scores are rounded before they are compared.
    for parameter in alone.parameters():
        parameter.data = parameter.bfloat16().float()
    expected = alone(images().float()).split(2)
    backward(alone, images().float())
    for (output, found), own in zip((one["mixed", name] for one in results), expected, strict=True):
        assert output.dtype == torch.bfloat16
        assert _distance(output, own) < 0.1
        assert found.keys() == gradients(alone).keys()
        assert all(_distance(found[key], one) < 0.1 for key, one in gradients(alone).items())


def _distance(found, expected):
    return (found - expected).norm() / expected.norm()
