"""The one training loop, on images that already are on the compute device."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.data import Dataset, test_batches, train_batches
from maskedconv.experiments import interrupts
from maskedconv.experiments.checkpoints import Checkpoint
from maskedconv.experiments.precision import resolve_amp
from maskedconv.history import Diverged, Epoch, History
from maskedconv.optimizers import make_optimizer, make_scheduler
from maskedconv.position import Position, Sums

__all__ = ["evaluate", "predict", "train"]

# On a CPU, activations beyond 32 MB leave malloc's heap, and fetching their pages anew for every
# batch costs more than the convolutions; a GPU wants larger batches to be busy.
CPU_TEST_BATCH_SIZE = 128
GPU_TEST_BATCH_SIZE = 1000


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
        Diverged: a loss of an epoch is not finite, or a value of the network after it.
        StoreError: the checkpoint cannot be written.
        KeyboardInterrupt: somebody asked to stop (see ``experiments.interrupts``); the checkpoint
            is written.
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
    position = Position(model, updates, scheduler, device)
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
            found = "the training loss" if not math.isfinite(train_loss) else _not_finite(model)
            if found:
                raise Diverged(found, epoch, history)
            stop = partial(_save_if_asked_to_stop, position, checkpoint)
            test_loss, test_top1 = evaluate(model, dataset, amp=amp, before_batch=stop)
        if not math.isfinite(test_loss):
            raise Diverged("the test loss", epoch, history)
        with warnings.catch_warnings():
            # A training that goes on behind an epoch's last batch has made no step of its own.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
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
    model: nn.Module,
    dataset: Dataset,
    batch_size: int | None = None,
    amp: bool = False,
    before_batch: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Mean cross-entropy and top-1 in percent on the test set; leaves the model in eval mode."""
    sums = Sums(dataset.device)
    for logits, labels in _answers(model, dataset, batch_size, amp, before_batch):
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
    model: nn.Module,
    dataset: Dataset,
    batch_size: int | None,
    amp: bool,
    before_batch: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [B, classes] and labels [B] of the test set, batch by batch."""
    model.eval()
    batch_size = batch_size or (
        CPU_TEST_BATCH_SIZE if dataset.device.type == "cpu" else GPU_TEST_BATCH_SIZE
    )
    for images, labels in test_batches(dataset, batch_size):
        before_batch()
        with _autocast(dataset.device, amp):
            logits = model(images)
        yield logits, labels


def _train_epoch(
    model: Callable[[Tensor], Tensor],
    position: Position,
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


def _save_if_asked_to_stop(position: Position, checkpoint: Checkpoint | None) -> None:
    """Evaluation changes nothing of the position, and may be long: it is left at any batch."""
    if checkpoint is not None and interrupts.requested():
        checkpoint.write(position.state())


def _not_finite(model: nn.Module) -> str:
    """The name of a parameter or buffer with a NaN or an infinity in it; "" if there is none.

    A loss may stay finite: a maximum, such as ReLU's on some paths, can lose a NaN on its way.
    """
    named = [
        (name, value)
        for name, value in chain(model.named_parameters(), model.named_buffers())
        if value.is_floating_point()
    ]
    finite = torch.stack([value.detach().isfinite().all() for _, value in named]).tolist()
    return next((name for (name, _), good in zip(named, finite, strict=True) if not good), "")


def _autocast(device: torch.device, enabled: bool) -> torch.autocast:
    # Entered anew for every batch: autocast keeps its copies of the weights until it is left.
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
