"""Fisher information of the slices of a network's convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskedconv import slices
from maskedconv.conversion.convolutions import obstacles, plain_layers
from maskedconv.conversion.naming import shortened
from maskedconv.methods import METHODS
from maskedconv.nn.as_before import buffers_restored, modes_restored


@dataclass(frozen=True)
class FisherInformation:
    """Scores of slices, as ``which`` of :func:`maskedconv.convert_`.

    Attributes:
        scores: for the name of each convolution ``[size]``, float32 on the CPU.
        slice_dim: of the slices.
    """

    scores: Mapping[str, Tensor]
    slice_dim: int = 0

    def __call__(self, module: nn.Module, name: str) -> Tensor:
        """The scores of the layer ``name``.

        Raises:
            ValueError: there are none.
        """
        if name not in self.scores:
            raise ValueError(f"there are no scores of it; expected one of {shortened(self.scores)}")
        return self.scores[name]


def fisher_information(
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    loss: Callable[[Any, Any], Tensor],
    *,
    slice_dim: int = 0,
) -> FisherInformation:
    """How much the loss depends on each slice of the convolutions that ``convert_`` can take.

    The score of a slice is the sum of the squared gradients of its weights, averaged over the
    batches. With one example in each batch, and the negative log-likelihood of its target as the
    loss, it is the sum of the slice's empirical Fisher information. Larger batches take less time,
    and square the mean gradient of their examples.

    The model runs in evaluation mode. Its mode, gradients and buffers stay as they are.

    Source: the diagonal of the empirical Fisher information, by which Sung et al. 2021, *Training
    Neural Networks with Fixed Sparse Masks* (arXiv 2111.09839), choose single weights.

    Args:
        batches: pairs of the model's input and the target, on its device.
        loss: a function of output and target that returns a scalar, such as ``F.cross_entropy``.
        slice_dim: as for :class:`maskedconv.MaskedConv2d`.

    Raises:
        ValueError: ``slice_dim`` is not one of the four, the model has no such layer, there are no
            batches, a loss is no scalar, or a score is NaN or infinite.
    """
    slices.check_slice_dim(slice_dim)
    plain = plain_layers(model, (nn.Conv2d,))
    left = obstacles(model, plain, METHODS["slice"].layers())
    layers = [(name, layer) for name, layer in plain if name not in left]
    if not layers:
        raise ValueError(f"model ({type(model).__name__}) has no nn.Conv2d that convert_ takes")
    weights = {id(layer): cast(Tensor, layer.weight) for _, layer in layers}
    with _evaluated(model, weights.values()):
        sums = _sums(model, batches, loss, list(weights.values()), slice_dim)
    scores = dict(zip(weights, sums, strict=True))
    found = {name: scores[id(layer)] for name, layer in layers}
    if wrong := [name for name, score in found.items() if not score.isfinite().all()]:
        raise ValueError(f"the gradients of {shortened(wrong)} are NaN or infinite")
    return FisherInformation(found, slice_dim)


def _sums(
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    loss: Callable[[Any, Any], Tensor],
    weights: list[Tensor],
    slice_dim: int,
) -> list[Tensor]:
    """The mean over the batches of the squared gradients' sums, ``[size]`` for each weight."""
    sums = [torch.zeros(weight.size(slice_dim), device=weight.device) for weight in weights]
    count = 0
    for input, target in batches:
        value = loss(model(input), target)
        if value.numel() != 1:
            raise ValueError(f"loss returned {list(value.shape)}; expected a scalar")
        grads = torch.autograd.grad(value.sum(), weights, allow_unused=True)
        count += 1
        for total, grad in zip(sums, grads, strict=True):
            if grad is not None:
                total += grad.float().square().movedim(slice_dim, 0).flatten(1).sum(1)
    if not count:
        raise ValueError("batches is empty; expected at least one (input, target)")
    return [(total / count).cpu() for total in sums]


@contextmanager
def _evaluated(model: nn.Module, weights: Iterable[Tensor]) -> Iterator[None]:
    """Context in which the model is in evaluation mode and the weights require a gradient."""
    required = [(weight, weight.requires_grad) for weight in weights]
    try:
        for weight, _ in required:
            weight.requires_grad_(True)
        with modes_restored(model), buffers_restored(model), torch.enable_grad():
            model.eval()
            yield
    finally:
        for weight, requires in required:
            weight.requires_grad_(requires)
