"""The training loop, on images that are already on the compute device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from math import isfinite

import torch
from torch import nn

from maskedconv.data import Task
from maskedconv.nn.rerandomise import rerandomise_, rerandomises
from maskedconv.optim.factory import make_optimizer, make_scheduler
from maskedconv.training.batch_loss import BatchLoss
from maskedconv.training.captured_step import CapturedStep
from maskedconv.training.checkpoint import Checkpoint
from maskedconv.training.compiled import check_compile
from maskedconv.training.config import TrainingConfig
from maskedconv.training.eager_step import Step
from maskedconv.training.evaluation import Stopped, evaluate
from maskedconv.training.graph import check_graph
from maskedconv.training.history import Diverged, Epoch, History
from maskedconv.training.ranks import lost_processes_named, ranks_of
from maskedconv.training.saving import Saving
from maskedconv.training.state import Position, means
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

    If ``dataset`` is one of several shares, the processes of PyTorch's default group train the
    network together. All call this function with the same arguments, except that only the first one
    has a ``checkpoint``. Each gets the whole network and the same history.

    Args:
        graph: "on" captures the training step in a CUDA graph after some eager steps, and replays
            it for every batch of ``batch_size`` images; the numbers stay those of eager steps.
            "auto" does so on CUDA unless the optimizer or the network prevents it. "off" does not.
        on_epoch: called with the result of each epoch, including the epochs in a checkpoint.
        checkpoint: training resumes from it bit for bit (on a CPU, with the same number of
            threads, in one or two processes; PyTorch reduces the gradients of more processes in
            another order in the first step) and writes it whenever it is due.

    Raises:
        ValueError: no parameter requires a gradient; ``graph`` is "on" and the device or the
            optimizer prevents it; ``config.compile`` is True and there is no compiler.
        RuntimeError: ``graph`` is "on" and the network prevents it.
        LostProcess: another process ended.
        Diverged: the loss of an epoch, or a value of the network after it, is not finite.
        StoreError: the checkpoint cannot be written.
        KeyboardInterrupt: a stop was requested (``training.interrupts``), and the checkpoint is
            written.
    """
    check_graph(graph, dataset.device.type, [config.optimizer], dataset.share.count)
    check_compile(config.compile, dataset.device.type)
    ranks = ranks_of(dataset.share)
    position = _begin(model, dataset.device, config)
    told = on_epoch or (lambda epoch: None)
    with lost_processes_named():
        saving = Saving(checkpoint, ranks, dataset.share.index)
        saving.restore(position)
        for past in position.history.epochs:
            told(past)
        step = make_step(position, config, graph, dataset)
        while len(position.history.epochs) < config.epochs:
            result = _one_epoch(step, position, dataset, config, saving)
            position.end_epoch(result)
            told(result)
            saving.write_if_due(position)
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
    step: Step, position: Position, dataset: Task, config: TrainingConfig, saving: Saving
) -> Epoch:
    """Trains the rest of the current epoch, evaluates the network and steps the schedule."""
    history, lr = position.history, float(position.scheduler.get_last_lr()[0])
    epoch, ranks = len(history.epochs) + 1, ranks_of(dataset.share)
    with _convolutions_timed():
        _train_epoch(step, position, dataset, config, saving)
        train_loss, train_top1 = means(ranks.sum(position.sums.values()))
        ranks.average_statistics_(position.model)
        found = "the training loss" if not isfinite(train_loss) else _not_finite(position.model)
        if found:
            raise Diverged(found, epoch, history)
        test_loss, test_top1 = _evaluate(position, dataset, config, saving)
    if not isfinite(test_loss):
        raise Diverged("the test loss", epoch, history)
    with warnings.catch_warnings():
        # A training that resumes after an epoch's last batch has made no step in this process.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        position.scheduler.step()
    return Epoch(epoch, train_loss, train_top1, test_loss, test_top1, position.seconds, lr)


@contextmanager
def _convolutions_timed() -> Iterator[None]:
    """Context in which cuDNN takes the fastest algorithm, unless a deterministic one is asked for.

    Shapes repeat from batch to batch, so that timing the algorithms pays. No other setting changes.
    """
    cudnn, before = torch.backends.cudnn, torch.backends.cudnn.benchmark
    if not (cudnn.deterministic or torch.are_deterministic_algorithms_enabled()):
        cudnn.benchmark = True
    try:
        yield
    finally:
        cudnn.benchmark = before


def _train_epoch(
    step: Step, position: Position, dataset: Task, config: TrainingConfig, saving: Saving
) -> None:
    """The rest of an epoch, from ``position`` on."""
    position.model.train()
    epoch, redraws = len(position.history.epochs) + 1, rerandomises(position.model)
    batches = dataset.train_batches(config.batch_size, config.seed, epoch, position.batch)
    own = BatchLoss(dataset)
    for images, labels in batches:
        # Not after the last batch: the end of the epoch writes its own checkpoint.
        if position.batch:
            saving.write_if_due(position)
        if redraws:
            rerandomise_(position.model, position.steps + 1, config.seed)
        loss, logits = step(images, labels)
        correct = own.correct(logits, labels)
        position.sums.add(loss, correct, own.count(labels), own.terms(labels))
        position.batch += 1
        position.steps += 1
    if not position.sums.count:
        raise ValueError("dataset has no training images")


def _evaluate(
    position: Position, dataset: Task, config: TrainingConfig, saving: Saving
) -> tuple[float, float]:
    """Mean loss and accuracy on the test set.

    Stops at any batch if asked to: it may take long and does not change the position.
    """
    amp = config.amp == "bf16"
    try:
        return evaluate(position.model, dataset, amp=amp, stop=saving.stop_requested)
    except Stopped:
        saving.write(position)
        raise


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
