"""One forward and backward pass of a model that leaves no trace in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from maskedconv.fusion.checking import storage_of

_SEED = 0


class Trial(NamedTuple):
    """The results of a pass.

    Attributes:
        outputs: the tensors that the model returns.
        gradients: of the parameters, of a fixed weighted sum of the outputs.
        buffers: the model's buffers afterwards, such as running statistics.
        kept: bytes that were kept for backward, apart from parameters and buffers.
    """

    outputs: list[Tensor]
    gradients: list[Tensor]
    buffers: list[Tensor]
    kept: int


def try_model(model: nn.Module, inputs: Sequence[Any], run: Callable[..., Any]) -> Trial:
    """Runs ``run(*inputs)``, which calls ``model``, and its backward pass.

    Buffers are restored, gradients of parameters are not touched, and random numbers are the same
    in each trial.

    Raises:
        ValueError: nothing that the model returns depends on a parameter that is learned.
    """
    with _restored(model), torch.enable_grad(), torch.random.fork_rng(_devices(model)):
        torch.manual_seed(_SEED)
        kept = KeptBytes(model)
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            results = run(*inputs)
        outputs = [one for one in tree_leaves(results) if isinstance(one, Tensor)]
        gradients = _gradients(model, outputs)
        buffers = [one.clone() for one in model.buffers()]
    return Trial([one.detach() for one in outputs], gradients, buffers, kept.total)


class KeptBytes:
    """Counts the bytes of unique storages, except those of the model's own tensors."""

    def __init__(self, model: nn.Module) -> None:
        self._known = {storage_of(one) for one in [*model.parameters(), *model.buffers()]}
        self.total = 0

    def pack(self, tensor: Tensor) -> Tensor:
        # The graph keeps the storage alive, so that no address is reused.
        if storage_of(tensor) not in self._known:
            self._known.add(storage_of(tensor))
            self.total += tensor.untyped_storage().nbytes()
        return tensor


def difference(trial: Trial, plain: Trial) -> str:
    """Where a trial differs from that of the plain model; empty if nowhere.

    On the CPU the bits are equal. The tolerance is for a GPU, whose sums may have another order.
    """
    for part in ("outputs", "gradients", "buffers"):
        ours, others = getattr(trial, part), getattr(plain, part)
        if len(ours) != len(others) or not all(map(_is_near, ours, others)):
            return part
    return ""


def _gradients(model: nn.Module, outputs: Sequence[Tensor]) -> list[Tensor]:
    learned = [one for one in model.parameters() if one.requires_grad]
    results = [one for one in outputs if one.requires_grad]
    if not learned or not results:
        raise ValueError(
            "model has no output that depends on a parameter that requires a gradient, so nothing "
            "is kept for backward"
        )
    weights = [torch.randn_like(one) for one in results]
    gradients = torch.autograd.grad(results, learned, weights, allow_unused=True)
    return [one for one in gradients if one is not None]


def _is_near(value: Tensor, expected: Tensor) -> bool:
    if torch.equal(value, expected):
        return True
    if not expected.is_floating_point() or value.shape != expected.shape:
        return False
    error = (value - expected).double().norm()
    # Written so that NaN is not near.
    return bool(error <= torch.finfo(expected.dtype).eps ** 0.5 * expected.double().norm())


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Restores the values of the buffers."""
    values = [(one, one.detach().clone()) for one in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)


def _devices(model: nn.Module) -> list[torch.device]:
    """The GPUs whose random numbers the model may draw."""
    devices = {one.device for one in [*model.parameters(), *model.buffers()]}
    return [device for device in devices if device.type == "cuda"]
