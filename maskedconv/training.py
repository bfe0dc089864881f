"""The one training loop: momentum SGD on images that already are on the compute device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.data import Dataset, test_batches, train_batches
from maskedconv.experiments.config import SCHEDULES

# On a CPU, activations beyond 32 MB leave malloc's heap, and fetching their pages anew for every
# batch costs more than the convolutions; a GPU wants larger batches to be busy.
CPU_TEST_BATCH_SIZE = 128
GPU_TEST_BATCH_SIZE = 1000


@dataclass(frozen=True)
class Epoch:
    """One epoch's result: mean losses, top-1 in percent, its learning rate and wall time.

    ``train_loss`` and ``train_top1`` are those of the batches as they were learned from;
    ``seconds`` covers training and evaluation.
    """

    epoch: int
    train_loss: float
    train_top1: float
    test_loss: float
    test_top1: float
    seconds: float
    lr: float


@dataclass
class History:
    """The epochs of a run, in order; the first is epoch 1."""

    epochs: list[Epoch] = field(default_factory=list)

    @property
    def last_top1(self) -> float | None:
        """Top-1 on the test set after the last epoch, in percent; None before the first."""
        return self.epochs[-1].test_top1 if self.epochs else None

    @property
    def best(self) -> Epoch | None:
        """The (first) epoch of the best top-1 on the test set, which is what the paper prints."""
        return max(self.epochs, key=lambda item: item.test_top1, default=None)


class Diverged(ArithmeticError):
    """The loss of an epoch was not finite.

    Attributes:
        epoch: the epoch, from 1.
        history: the epochs before it.
    """

    def __init__(self, epoch: int, history: History) -> None:
        super().__init__(f"the training loss is not finite in epoch {epoch}")
        self.epoch = epoch
        self.history = history


def train(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    milestones: tuple[int, ...] = (),
    gamma: float = 0.1,
    nesterov: bool = False,
    schedule: str = "step",
    seed: int = 0,
    amp: bool | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Trains ``model`` in place on the device of ``dataset``, and evaluates it after each epoch.

    Only parameters that require a gradient reach the optimiser. The order of the images and their
    augmentation are functions of ``seed`` and the epoch. The host does not wait for the device
    within an epoch.

    Args:
        milestones, gamma: the learning rate is multiplied by ``gamma`` after each of these epochs.
        schedule: "step" for that; "cosine" decays ``lr`` to zero over ``epochs`` instead.
        amp: compute in bfloat16 under autocast; by default on CUDA only.
        on_epoch: called with each epoch's result.

    Raises:
        ValueError: ``epochs`` is below 1, ``schedule`` is unknown, or there is nothing to learn.
        Diverged: the loss of an epoch is not finite.
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; expected at least 1")
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learned:
        raise ValueError("model has no parameter that requires a gradient; nothing can be learned")
    device = dataset.device
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        learned, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
    )
    scheduler = _scheduler(optimizer, schedule, epochs, milestones, gamma)
    amp = device.type == "cuda" if amp is None else amp
    history = History()
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        epoch_lr = float(scheduler.get_last_lr()[0])
        # Shapes repeat from batch to batch, so that trying convolution algorithms pays.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            batches = train_batches(dataset, batch_size, seed, epoch)
            train_loss, train_top1 = _train_epoch(model, optimizer, batches, amp)
            if not math.isfinite(train_loss):
                raise Diverged(epoch, history)
            test_loss, test_top1 = evaluate(model, dataset, amp=amp)
        scheduler.step()
        seconds = time.perf_counter() - start
        result = Epoch(epoch, train_loss, train_top1, test_loss, test_top1, seconds, epoch_lr)
        history.epochs.append(result)
        if on_epoch is not None:
            on_epoch(result)
    return history


@torch.no_grad()
def evaluate(
    model: nn.Module, dataset: Dataset, batch_size: int | None = None, amp: bool = False
) -> tuple[float, float]:
    """Mean cross-entropy and top-1 in percent on the test set; leaves the model in eval mode."""
    model.eval()
    batch_size = batch_size or (
        CPU_TEST_BATCH_SIZE if dataset.device.type == "cpu" else GPU_TEST_BATCH_SIZE
    )
    sums = _Sums(dataset.device)
    for images, labels in test_batches(dataset, batch_size):
        with _autocast(dataset.device, amp):
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        sums.add(loss, logits, labels)
    return sums.means()


def _scheduler(
    optimizer: torch.optim.Optimizer,
    schedule: str,
    epochs: int,
    milestones: tuple[int, ...],
    gamma: float,
) -> torch.optim.lr_scheduler.LRScheduler:
    if schedule == "step":
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, list(milestones), gamma)
    if schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    raise ValueError(f"schedule is {schedule!r}; expected one of {', '.join(SCHEDULES)}")


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[Tensor, Tensor]],
    amp: bool,
) -> tuple[float, float]:
    model.train()
    sums: _Sums | None = None
    for images, labels in batches:
        sums = sums or _Sums(images.device)
        with _autocast(images.device, amp):
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        sums.add(loss.detach(), logits.detach(), labels)
    if sums is None:
        raise ValueError("dataset has no training images")
    return sums.means()


class _Sums:
    """Loss and correct answers summed on the device, so that no step waits for the host."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device, dtype=torch.float64)
        self.correct = torch.zeros((), device=device, dtype=torch.int64)
        self.count = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """One batch: mean ``loss`` [], ``logits`` [B, classes], ``labels`` [B]."""
        self.loss += loss * len(labels)
        self.correct += (logits.argmax(1) == labels).sum()
        self.count += len(labels)

    def means(self) -> tuple[float, float]:
        """Mean loss, and top-1 in percent."""
        return self.loss.item() / self.count, 100.0 * self.correct.item() / self.count


def _autocast(device: torch.device, enabled: bool) -> torch.autocast:
    # Entered anew for every batch: autocast keeps its copies of the weights until it is left.
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
