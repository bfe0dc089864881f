"""The one training loop, on images that already are on the compute device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from maskedconv.data import Dataset, test_batches, train_batches
from maskedconv.experiments.checkpoints import Checkpoint
from maskedconv.experiments.precision import resolve_amp
from maskedconv.optimizers import make_optimizer, make_scheduler

# On a CPU, activations beyond 32 MB leave malloc's heap, and fetching their pages anew for every
# batch costs more than the convolutions; a GPU wants larger batches to be busy.
CPU_TEST_BATCH_SIZE = 128
GPU_TEST_BATCH_SIZE = 1000
# Of a position: what has a state_dict.
_STATEFUL = ("model", "optimizer", "scheduler")


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
    optimizer: str = "sgd",
    seed: int = 0,
    amp: bool | None = None,
    compile: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Trains ``model`` in place on the device of ``dataset``, and evaluates it after each epoch.

    Only parameters that require a gradient reach the optimiser. The order of the images and their
    augmentation are functions of ``seed`` and the epoch. The host does not wait for the device
    within an epoch, but where a checkpoint is written.

    Args:
        milestones, gamma: the learning rate is multiplied by ``gamma`` after each of these epochs.
        schedule: "step" for that; "cosine" decays ``lr`` to zero over ``epochs`` instead.
        optimizer: "sgd", "adam" (``momentum`` is its beta1) or "yellowfin" (where it starts).
        amp: compute in bfloat16 under autocast; by default on CUDA and on a CPU with AMX.
        compile: train through ``torch.compile``. Off, as for wrn_28_4 on a CPU a compiled step took
            as long as an eager one, and compiling as long as many of them.
        on_epoch: called with each epoch's result, those that a checkpoint holds included.
        checkpoint: where training goes on from and, whenever it is due, is written to. What then
            comes is to the bit what would have come (on a CPU, with as many threads).

    Raises:
        ValueError: ``epochs`` is below 1, ``schedule`` or ``optimizer`` is unknown, or there is
            nothing to learn.
        Diverged: the loss of an epoch is not finite.
        StoreError: the checkpoint cannot be written.
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; expected at least 1")
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learned:
        raise ValueError("model has no parameter that requires a gradient; nothing can be learned")
    device = dataset.device
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    updates = make_optimizer(
        optimizer, learned, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
    )
    scheduler = make_scheduler(schedule, updates, epochs, milestones, gamma)
    position = _Position(model, updates, scheduler, device)
    if checkpoint is not None and (state := checkpoint.take()) is not None:
        position.restore(state)
    history = position.history
    if on_epoch is not None:
        for past in history.epochs:
            on_epoch(past)
    forward = torch.compile(model) if compile else model
    amp = resolve_amp("auto", device.type) == "bf16" if amp is None else amp
    while len(history.epochs) < epochs:
        epoch = len(history.epochs) + 1
        epoch_lr = float(scheduler.get_last_lr()[0])
        # Shapes repeat from batch to batch, so that trying convolution algorithms pays.
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            batches = train_batches(dataset, batch_size, seed, epoch, first_batch=position.batch)
            _train_epoch(forward, position, batches, amp, checkpoint)
            train_loss, train_top1 = position.sums.means()
            if not math.isfinite(train_loss):
                raise Diverged(epoch, history)
            test_loss, test_top1 = evaluate(model, dataset, amp=amp)
        scheduler.step()
        seconds = position.seconds
        result = Epoch(epoch, train_loss, train_top1, test_loss, test_top1, seconds, epoch_lr)
        position.end_epoch(result)
        if on_epoch is not None:
            on_epoch(result)
        if checkpoint is not None and checkpoint.due():
            checkpoint.write(position.state())
    return history


def evaluate(
    model: nn.Module, dataset: Dataset, batch_size: int | None = None, amp: bool = False
) -> tuple[float, float]:
    """Mean cross-entropy and top-1 in percent on the test set; leaves the model in eval mode."""
    sums = _Sums(dataset.device)
    for logits, labels in _answers(model, dataset, batch_size, amp):
        with _autocast(dataset.device, amp):
            loss = F.cross_entropy(logits, labels)
        sums.add(loss, logits, labels)
    return sums.means()


def predict(
    model: nn.Module, dataset: Dataset, batch_size: int | None = None, amp: bool = False
) -> Tensor:
    """Softmax float32 [N, classes] on the test set; leaves the model in eval mode."""
    answers = _answers(model, dataset, batch_size, amp)
    return torch.cat([logits.float().softmax(1) for logits, _ in answers])


@torch.no_grad()
def _answers(
    model: nn.Module, dataset: Dataset, batch_size: int | None, amp: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [B, classes] and labels [B] of the test set, batch by batch."""
    model.eval()
    batch_size = batch_size or (
        CPU_TEST_BATCH_SIZE if dataset.device.type == "cpu" else GPU_TEST_BATCH_SIZE
    )
    for images, labels in test_batches(dataset, batch_size):
        with _autocast(dataset.device, amp):
            logits = model(images)
        yield logits, labels


def _train_epoch(
    model: Callable[[Tensor], Tensor],
    position: _Position,
    batches: Iterator[tuple[Tensor, Tensor]],
    amp: bool,
    checkpoint: Checkpoint | None,
) -> None:
    """The rest of an epoch, from ``position`` on."""
    position.model.train()
    for images, labels in batches:
        # Not behind the last batch: the end of the epoch has its own.
        if position.batch and checkpoint is not None and checkpoint.due():
            checkpoint.write(position.state())
        with _autocast(images.device, amp):
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        position.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        position.optimizer.step()
        position.sums.add(loss.detach(), logits.detach(), labels)
        position.batch += 1
    if not position.sums.count:
        raise ValueError("dataset has no training images")


class _Position:
    """How far training has come: everything that what follows depends on.

    Attributes:
        history: of the epochs that are over.
        batch: batches of the present epoch that are over, with their ``sums``.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, device: torch.device
    ) -> None:
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.history = History()
        self._device = device
        self._begin_epoch()

    @property
    def seconds(self) -> float:
        """Wall time of the present epoch so far."""
        return self._seconds_before + time.perf_counter() - self._start

    def end_epoch(self, result: Epoch) -> None:
        """Adds ``result`` to the history; the next epoch begins."""
        self.history.epochs.append(result)
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.batch, self.sums = 0, _Sums(self._device)
        self._seconds_before, self._start = 0.0, time.perf_counter()

    def state(self) -> dict[str, Any]:
        """All of it as tensors and JSON values; waits for the device."""
        # Order and augmentation have generators of their own; dropout draws from the global ones.
        cuda = self._device.type == "cuda"
        return {
            **{name: getattr(self, name).state_dict() for name in _STATEFUL},
            "history": [asdict(epoch) for epoch in self.history.epochs],
            "batch": self.batch,
            "sums": vars(self.sums),
            "seconds": self.seconds,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self._device) if cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to where :meth:`state` was."""
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.history.epochs[:] = [Epoch(**epoch) for epoch in state["history"]]
        self.batch, self._seconds_before = state["batch"], state["seconds"]
        for name, value in state["sums"].items():
            moved = value.to(self._device) if isinstance(value, Tensor) else value
            setattr(self.sums, name, moved)
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self._device)


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
