"""Ensembles over one trained start (Rosenfeld & Tsotsos 2018, table 4).

Every member goes on learning a part of the start; the rest is held once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from maskedconv.checkpoint.saving import file_bytes
from maskedconv.data import Dataset
from maskedconv.ensemble import Ensemble
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.runs.config import RunConfig
from maskedconv.runs.row import EnsembleOutcome, epochs_of
from maskedconv.seeds import Purpose, mixed_seed
from maskedconv.training.checkpoint import Checkpoint
from maskedconv.training.evaluation import predict
from maskedconv.training.history import Epoch, History

Fit = Callable[[nn.Module, int], History]


def train_members(
    start: nn.Module, config: RunConfig, dataset: Dataset, fit: Fit, checkpoint: Checkpoint
) -> EnsembleOutcome:
    """Trains the members of an :class:`~maskedconv.Ensemble` of ``start``; returns the row's part.

    That is: ``members``, each with its ``history`` and last ``top1`` on the test set in percent;
    their mean as ``last_top1`` and ``best_top1``; ``ensemble_top1`` of their averaged softmax; and
    the bytes of each member's file in ``stored_bytes``. ``start`` stays as it is.

    Args:
        fit: trains a network; order, augmentation and dropout are drawn from the seed.
        checkpoint: the one that ``fit`` trains with; members that are over are kept in it.
    """
    context = checkpoint.context
    rows: list[dict[str, Any]] = context.get("members", [])
    summed: Tensor | float = context.get("probabilities", 0.0)
    ensemble = Ensemble(start, config.members)
    # As the training does; moving a single member would copy what is shared.
    ensemble.to(dataset.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for index in range(len(rows), config.members):
        model = ensemble.members[index]
        own_seed = mixed_seed(config.seed, index, Purpose.EPOCH)
        torch.manual_seed(own_seed)
        epochs = epochs_of(fit(model, own_seed))
        probabilities = predict(model, dataset, amp=config.amp == "bf16")
        summed = summed + probabilities.double().cpu()
        model.zero_grad()
        top1 = epochs[-1]["test_top1"]
        rows = [*rows, {"top1": top1, "history": epochs, "bytes": file_bytes(model)}]
        checkpoint.context = {"members": rows, "probabilities": summed}
    assert isinstance(summed, Tensor)
    right = summed.argmax(1) == dataset.test_labels.cpu()
    mean = round(statistics.fmean(row["top1"] for row in rows), 6)
    return {
        "members": [{"top1": row["top1"], "history": row["history"]} for row in rows],
        "ensemble_top1": round(100.0 * right.double().mean().item(), 6),
        "last_top1": mean,
        "best_top1": mean,
        "best_epoch": rows[0]["history"][-1]["epoch"],
        "history": [],
        "stored_bytes": {"members": [row["bytes"] for row in rows]},
    }


def member_epochs(checkpoint: Checkpoint) -> Iterator[Epoch]:
    """The epochs of the members in ``checkpoint`` that are over."""
    for member in checkpoint.context.get("members", []):
        yield from (Epoch(**epoch) for epoch in member["history"])


def freeze_unlearned_(model: nn.Module) -> None:
    """Freezes the learned part of every layer that has no gradient, in place.

    Each member would store that part otherwise (table 4's FC).
    """
    for name, layer in list(model.named_modules()):
        if isinstance(layer, PartlyLearned) and not any(
            parameter.requires_grad for parameter in layer.parameters()
        ):
            model.set_submodule(name, layer.to_frozen())
