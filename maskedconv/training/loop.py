"""The training loop, on images that are already on the compute device."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from itertools import chain

import torch
from torch import nn

from maskedconv.data import Task
from maskedconv.nn.rerandomise import rerandomise_, rerandomises
from maskedconv.optim.factory import make_optimizer, make_scheduler
from maskedconv.training import interrupts
from maskedconv.training.captured_step import CapturedStep
from maskedconv.training.checkpoint import Checkpoint
from maskedconv.training.compiled import check_compile
from maskedconv.training.config import TrainingConfig
from maskedconv.training.eager_step import Step
from maskedconv.training.evaluation import evaluate
from maskedconv.training.graph import check_graph
from maskedconv.training.history import Diverged, Epoch, History
from maskedconv.training.state import Position
from maskedconv.training.step import make_step


def train(
    model: nn.Module,
    dataset: Task,
    config: TrainingConfig,
    *,
    graph: str = "off",
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Trains ``model`` in place on the device of ``dataset``, and evaluates it after each epoch.

    The optimizer receives only parameters that require a gradient. The order of the images and
    their augmentation depend on the seed and the epoch. The host waits for the device only at the
    end of an epoch and to write a checkpoint.

    Args:
        graph: "on" captures the training step in a CUDA graph after some eager steps, and replays
            it for every batch of ``batch_size`` images; the numbers stay those of eager steps.
            "auto" does so on CUDA unless the optimizer or the network prevents it. "off" does not.
        on_epoch: called with the result of each epoch, including the epochs in a checkpoint.
        checkpoint: training resumes from it bit for bit (on a CPU, with the same number of
            threads) and writes it whenever it is due.

    Raises:
        ValueError: no parameter requires a gradient; ``graph`` is "on" and the device or the
            optimizer prevents it; ``config.compile`` is True and there is no compiler.
        RuntimeError: ``graph`` is "on" and the network prevents it.
        Diverged: the loss of an epoch, or a value of the network after it, is not finite.
        StoreError: the checkpoint cannot be written.
        KeyboardInterrupt: a stop was requested (``training.interrupts``), and the checkpoint is
            written.
    """
    check_graph(graph, dataset.device.type, [config.optimizer])
    check_compile(config.compile, dataset.device.type)
    position = _begin(model, dataset.device, config)
    if checkpoint is not None and (state := checkpoint.take()) is not None:
        position.restore(state)
    told = on_epoch or (lambda epoch: None)
    for past in position.history.epochs:
        told(past)
    step = make_step(position, config, graph, dataset.loss)
    while len(position.history.epochs) < config.epochs:
        result = _one_epoch(step, position, dataset, config, checkpoint)
        position.end_epoch(result)
        told(result)
        if checkpoint is not None and checkpoint.due():
            checkpoint.write(position.state())
    if isinstance(step, CapturedStep):
        step.tell_unused()
    return position.history


def _begin(model: nn.Module, device: torch.device, config: TrainingConfig) -> Position:
    """Moves ``model`` to ``device`` and creates its optimizer and schedule."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learned:
        raise ValueError("model has no parameter that requires a gradient; nothing can be learned")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(
        config.optimizer,
        learned,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )
    scheduler = make_scheduler(
        config.schedule,
        optimizer,
        config.epochs,
        config.milestones,
        config.gamma,
        config.warmup,
    )
    return Position(model, optimizer, scheduler, device)


def _one_epoch(
    step: Step,
    position: Position,
    dataset: Task,
    config: TrainingConfig,
    checkpoint: Checkpoint | None,
) -> Epoch:
    """Trains the rest of the current epoch, evaluates the network and steps the schedule."""
    model, history = position.model, position.history
    epoch, lr = len(history.epochs) + 1, float(position.scheduler.get_last_lr()[0])
    # Shapes repeat from batch to batch, so that benchmarking convolution algorithms pays.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        _train_epoch(step, position, dataset, config, checkpoint)
        train_loss, train_top1 = position.sums.means()
        found = "the training loss" if not math.isfinite(train_loss) else _not_finite(model)
        if found:
            raise Diverged(found, epoch, history)
        stop = partial(_save_if_asked_to_stop, position, checkpoint)
        amp = config.amp == "bf16"
        test_loss, test_top1 = evaluate(model, dataset, amp=amp, before_batch=stop)
    if not math.isfinite(test_loss):
        raise Diverged("the test loss", epoch, history)
    with warnings.catch_warnings():
        # A training that resumes after an epoch's last batch has made no step in this process.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        position.scheduler.step()
    return Epoch(epoch, train_loss, train_top1, test_loss, test_top1, position.seconds, lr)


def _train_epoch(
    step: Step,
    position: Position,
    dataset: Task,
    config: TrainingConfig,
    checkpoint: Checkpoint | None,
) -> None:
    """The rest of an epoch, from ``position`` on."""
    position.model.train()
    epoch, redraws = len(position.history.epochs) + 1, rerandomises(position.model)
    batches = dataset.train_batches(config.batch_size, config.seed, epoch, position.batch)
    for images, labels in batches:
        # Not after the last batch: the end of the epoch writes its own checkpoint.
        if position.batch and checkpoint is not None and checkpoint.due():
            checkpoint.write(position.state())
        if redraws:
            rerandomise_(position.model, position.steps + 1, config.seed)
        loss, logits = step(images, labels)
        position.sums.add(loss, dataset.correct(logits, labels), len(labels))
        position.batch += 1
        position.steps += 1
    if not position.sums.count:
        raise ValueError("dataset has no training images")


def _save_if_asked_to_stop(position: Position, checkpoint: Checkpoint | None) -> None:
    """Stops an evaluation at any batch: it may take long and does not change the position."""
    if checkpoint is not None and interrupts.requested():
        checkpoint.write(position.state())


def _not_finite(model: nn.Module) -> str:
    """The name of a parameter or buffer with a NaN or an infinity; "" if there is none.

    The loss may stay finite, because a maximum (as in some implementations of ReLU) can drop a NaN.
    """
    named = [
        (name, value)
        for name, value in chain(model.named_parameters(), model.named_buffers())
        if value.is_floating_point()
    ]
    finite = torch.stack([value.detach().isfinite().all() for _, value in named]).tolist()
    return next((name for (name, _), good in zip(named, finite, strict=True) if not good), "")
