"""The training loop, on images that are already on the compute device."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskedconv.data import Dataset, train_batches
from maskedconv.optim.factory import make_optimizer, make_scheduler
from maskedconv.training import interrupts
from maskedconv.training.checkpoint import Checkpoint
from maskedconv.training.evaluation import autocast, evaluate
from maskedconv.training.history import Diverged, Epoch, History
from maskedconv.training.precision import resolve_amp
from maskedconv.training.state import Position


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
        KeyboardInterrupt: somebody asked to stop (see ``training.interrupts``); the checkpoint
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
        with autocast(images.device, amp):
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
