"""The kernel launches and bytes of a training step on CUDA, counted without a GPU.

    python -m bench.launches --network wrn_28_10 --learned 0.1

The step runs on tensors without memory (FakeTensor), with the CUDA backends forced. PyTorch's
operators are counted as they are dispatched, one launch each; a convolution's backward is one for
each gradient. The kernels of this package are counted by their own host code, built with g++ such
that a launch is noted and not carried out. Bytes are those of the tensors that an operator reads
and writes, once each. The time is a bound, not a measurement: bytes or FLOPs over the ceilings.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bench.launches_cost import bytes_of, convolution_cost, size_of, weight_grad_flops
from bench.plain_networks import plain_forward
from maskedconv import merge_, models
from maskedconv.functional import bn_relu_step
from maskedconv.nn import bn_relu_conv2d
from maskedconv.ops import channels, devices, dispatch, native, plain
from maskedconv.ops.bn_relu import cuda as bn_relu
from maskedconv.ops.bn_statistics import cuda as bn_statistics
from maskedconv.ops.pack_filters import cuda as pack_filters
from maskedconv.ops.weight_grad import cuda as weight_grad
from maskedconv.ops.weight_grad import gpu
from maskedconv.ops.weight_grad.problem import outside_the_kernels
from tests.support import emulation

BATCH = {"densenet_bc_100_12": 64}
TOTAL = "all operators"
# Bytes and FLOPs (dense bfloat16) a second of an H200, as measured by others.
CEILINGS = (4.3e12, 790e12)
STREAM = SimpleNamespace(cuda_stream=0)
GPU = SimpleNamespace(multi_processor_count=132, shared_memory_per_block_optin=232448)
FREE = (
    "device", "empty", "new_empty", "view", "detach", "alias", "as_strided", "set_", "lift",
    "resize",
)  # fmt: skip


class Launches(NamedTuple):
    """Launches, bytes and FLOPs of one operator; ``problem`` if it is one of this package."""

    operator: str
    launches: int
    bytes: int
    flops: int = 0
    problem: Any = None

    @property
    def bound(self) -> float:
        """The least seconds, by the ceilings."""
        return max(self.bytes / CEILINGS[0], self.flops / CEILINGS[1])


class Ledger(TorchDispatchMode):
    """Collects PyTorch's operators, and those of this package when they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Launches] = []
        self._within = 0

    @contextlib.contextmanager
    def operator(self, name: str, module: Any, problem: Any, *rest: Any) -> Iterator[None]:
        """Counts the launches of an operator of this package, including PyTorch's within it.

        Args:
            rest: the arguments besides ``problem``.
        """
        module.take_launches()
        yield
        count = len(module.take_launches())
        moved = bytes_of(name, count, problem, rest)
        flops = weight_grad_flops(problem) if name == "weight_grad" else 0
        self.entries.append(Launches(name, count, moved, flops, problem))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not (func.is_view or name.startswith(FREE)):
            tensors = {
                id(t): t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)
            }
            if tensors:
                launches, flops = convolution_cost(name, args, result)
                self.entries.append(
                    Launches(name, launches, sum(map(size_of, tensors.values())), flops)
                )
        return tree_map(_channels_last, result) if name.startswith("convolution") else result


def _channels_last(result: Any) -> Any:
    """The result in the memory format of cuDNN, which fake convolutions do not have."""
    if not isinstance(result, Tensor) or result.dim() != 4:
        return result
    return torch.empty_like(result, memory_format=torch.channels_last)


@contextlib.contextmanager
def pretended_gpu(ledger: Ledger, module: Any, backend: str = "cuda") -> Iterator[None]:
    """Makes the CUDA backends run on fake tensors; their launches go to ``ledger``.

    Args:
        module: result of ``emulation.build_module``.
        backend: name of the backend that must run.
    """
    module.count_launches_only(True)
    patches: list[Any] = [
        mock.patch.object(native, "module", return_value=module),
        mock.patch.object(dispatch, "is_plain", return_value=True),
        mock.patch.object(bn_relu_conv2d, "is_plain", return_value=True),
        mock.patch.dict(os.environ, {dispatch.VARIABLE: backend}),
        mock.patch.object(bn_relu_step, "_keeps_packed_weight", return_value=True),
        mock.patch.object(bn_relu, "cannot_take", return_value=""),
        mock.patch.object(pack_filters, "cannot_run", return_value=""),
        mock.patch.object(weight_grad, "cannot_run", outside_the_kernels),
        mock.patch.object(torch.cuda, "device", return_value=contextlib.nullcontext()),
        mock.patch.object(torch.cuda, "current_stream", return_value=STREAM),
        mock.patch.object(devices, "properties_of", return_value=GPU),
    ]
    backends = {
        "bn_statistics": bn_statistics, "bn_relu": bn_relu, "pack_filters": pack_filters,
        "weight_grad": weight_grad,
    }  # fmt: skip
    for reader in (plain, channels, bn_relu, pack_filters, gpu):
        patches.append(mock.patch.object(reader, "address", return_value=64))
    for name, kernels in backends.items():
        patches.append(_counted(ledger, module, name, kernels, "run"))
    patches.append(_counted(ledger, module, "bn_relu_backward", bn_relu, "run_backward"))
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.callback(module.count_launches_only, False)
        yield


def _counted(ledger: Ledger, module: Any, name: str, backend: Any, method: str) -> Any:
    run = getattr(backend, method)

    def counted(problem: Any, *arguments: Any) -> Any:
        of_sum = getattr(problem, "summand", None) is not None
        full_name = f"{name}_of_sum" if of_sum else name
        with ledger.operator(full_name, module, problem, *arguments):
            return run(problem, *arguments)

    return mock.patch.object(backend, method, counted)


def without_memory(model: nn.Module) -> nn.Module:
    """The model with fake parameters and buffers."""
    for module in model.modules():
        for registry in (module._parameters, module._buffers):
            for name, tensor in registry.items():
                if tensor is not None:
                    layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, memory_format=layout)
                    registry[name] = nn.Parameter(fake) if name in module._parameters else fake
    return model


@contextlib.contextmanager
def autocast() -> Iterator[None]:
    """Autocast of fake tensors to bfloat16."""
    torch.set_autocast_enabled("cpu", True)
    torch.set_autocast_dtype("cpu", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cpu", False)
        torch.clear_autocast_cache()  # else the next step would find its weights converted


def count_step(
    network: str, learned: float, plain: bool, module: Any, backend: str = "cuda", batch: int = 0
) -> list[Launches]:
    """The operators of forward, loss and backward, under autocast to bfloat16.

    Args:
        plain: count plain modules, which learn everything.
        module: result of ``emulation.build_module``.
        backend: backend of our operators.
        batch: images; 0 for the paper's number.
    """
    ledger = Ledger()
    batch = batch or BATCH.get(network, 128)
    with torch.device("meta"):
        model = models.create(network, learned=learned)
    forward = plain_forward(network) if plain else nn.Module.__call__
    if plain:
        merge_(model)
    with FakeTensorMode(allow_non_fake_inputs=True), pretended_gpu(ledger, module, backend):
        without_memory(model).train()
        images = torch.empty(batch, 3, 32, 32)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.empty(batch, dtype=torch.int64)
        with ledger:
            with autocast():
                loss = F.cross_entropy(forward(model, images), labels)
            # backward() would copy gradients that are fake; it takes over real ones.
            torch.autograd.grad(loss, list(model.parameters()))
    return ledger.entries


def summary(entries: list[Launches]) -> list[dict[str, Any]]:
    """A row for each operator, by decreasing number of launches, and their sum."""
    names = dict.fromkeys(entry.operator for entry in entries)
    rows = []
    for name in [*names, TOTAL]:
        chosen = [entry for entry in entries if name in (TOTAL, entry.operator)]
        row: dict[str, Any] = {"operator": name, "launches": sum(e.launches for e in chosen)}
        row["MB"] = round(sum(e.bytes for e in chosen) / 1e6, 1)
        row["GFLOP"] = round(sum(e.flops for e in chosen) / 1e9, 1)
        row["bound_us"] = round(sum(e.bound for e in chosen) * 1e6, 1)
        rows.append(row)
    return sorted(rows, key=lambda row: (row["operator"] == TOTAL, -row["launches"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="wrn_28_10")
    parser.add_argument("--learned", type=float, default=0.1)
    parser.add_argument("--plain", action="store_true", help="plain modules instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        module = emulation.build_module(Path(folder))
        entries = count_step(arguments.network, arguments.learned, arguments.plain, module)
    print(f"{'operator':32} {'launches':>8} {'MB':>9} {'GFLOP':>8} {'bound_us':>9}")
    for row in summary(entries):
        print(
            f"{row['operator']:32} {row['launches']:8} {row['MB']:9.1f} {row['GFLOP']:8.1f} "
            f"{row['bound_us']:9.1f}"
        )


if __name__ == "__main__":
    main()
