"""Accuracy, loss and predictions of a network on the test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from maskedconv.data import Task
from maskedconv.training.ranks import ranks_of
from maskedconv.training.state import Sums, means

# On a CPU, malloc maps activations beyond 32 MB anew for every batch, and the page faults take
# longer than the convolutions. A GPU needs larger batches.
CPU_TEST_BATCH_SIZE = 128
GPU_TEST_BATCH_SIZE = 1000


class Stopped(Exception):
    """An evaluation was ended before its result."""


def evaluate(
    model: nn.Module,
    dataset: Task,
    batch_size: int | None = None,
    amp: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[float, float]:
    """Mean loss and accuracy in percent on the test set; leaves the model in eval mode.

    For images these are the cross-entropy and the top-1. The loss is the mean over all terms, such
    as tokens, and does not depend on ``batch_size``. All processes that share ``dataset`` call
    it with the same network.

    Args:
        stop: called before each batch; whether to end the evaluation.

    Raises:
        Stopped: a process ended it.
    """
    sums, ranks, stopped = Sums(dataset.device), ranks_of(dataset.share), stop()
    for logits, labels in answers(model, dataset, batch_size, amp):
        with autocast(dataset.device, amp):
            loss = dataset.loss(logits, labels)
        correct, terms = dataset.correct(logits, labels), dataset.terms(labels)
        sums.add(loss, correct, len(labels), terms)
        if stopped := stopped or stop():
            break
    if ranks.any(stopped):
        raise Stopped
    return means(ranks.sum(sums.values()))


def predict(
    model: nn.Module, dataset: Task, batch_size: int | None = None, amp: bool = False
) -> Tensor:
    """Softmax float32 [N, classes] on the test set; leaves the model in eval mode."""
    found = answers(model, dataset, batch_size, amp)
    return torch.cat([logits.float().softmax(1) for logits, _ in found])


@torch.no_grad()
def answers(
    model: nn.Module,
    dataset: Task,
    batch_size: int | None = None,
    amp: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [B, classes] and labels [B] of the test set, batch by batch.

    Leaves the model in eval mode.
    """
    model.eval()
    for images, labels in dataset.test_batches(batch_size or test_batch_size(dataset.device)):
        with autocast(dataset.device, amp):
            logits = model(images)
        yield logits, labels


def test_batch_size(device: torch.device) -> int:
    """The default number of test images in a batch."""
    return CPU_TEST_BATCH_SIZE if device.type == "cpu" else GPU_TEST_BATCH_SIZE


def autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """Autocast to bfloat16 on ``device``, if ``enabled``."""
    # Entered for every batch, because autocast caches its casted weights until it exits.
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
