"""The optimizers and learning-rate schedules of the training loop, by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
)

from maskedconv.checks import check_choice
from maskedconv.optim import OPTIMIZERS, SCHEDULES
from maskedconv.optim.yellowfin import YellowFin

# As in the authors' runs with YellowFin (Rosenfeld & Tsotsos 2018, table 3).
_YELLOWFIN_CLIP = 2.0
_YELLOWFIN_WINDOW = 20


def make_optimizer(
    name: str,
    parameters: Sequence[nn.Parameter],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> Optimizer:
    """The optimizer ``name`` of ``parameters``.

    ``momentum`` is SGD's momentum, Adam's beta1 or YellowFin's initial momentum; ``nesterov`` is
    for SGD only. On CUDA, Adam counts its steps on the device, so that a CUDA graph can contain
    them.

    Raises:
        ValueError: there is no such optimizer, or a value is invalid for it.
    """
    check_choice("optimizer", name, OPTIMIZERS)
    if nesterov and name != "sgd":
        raise ValueError(f"nesterov is True; expected False with optimizer {name}")
    if name == "sgd":
        return SGD(
            parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        )
    if name == "adam":
        return Adam(
            parameters,
            lr=lr,
            betas=(momentum, 0.999),
            weight_decay=weight_decay,
            # Also for eager steps, as the two ways round differently.
            capturable=all(parameter.is_cuda for parameter in parameters),
        )
    return YellowFin(
        parameters,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        window=_YELLOWFIN_WINDOW,
        clip=_YELLOWFIN_CLIP,
    )


def make_scheduler(
    name: str,
    optimizer: Optimizer,
    epochs: int,
    milestones: tuple[int, ...],
    gamma: float,
    warmup: int = 0,
) -> LRScheduler:
    """The schedule ``name``, stepped once an epoch; see ``training.config.TrainingConfig``.

    In epoch e of the first ``warmup`` ones, the learning rate of "step" is e / (warmup + 1) of the
    schedule's. That of "cosine" is e / warmup, and the cosine is over the epochs that remain, as in
    the code of Ramanujan et al. (2019).

    Raises:
        ValueError: there is no such schedule, or it takes no such milestones.
    """
    if milestones and (name == "cosine" or min(milestones) < 1):
        raise ValueError(
            f"milestones is {milestones} with schedule {name}; expected epochs from 1 with step, "
            "none with cosine"
        )
    check_choice("schedule", name, SCHEDULES)
    if name == "cosine":
        return _cosine(optimizer, epochs, warmup)
    schedule = MultiStepLR(optimizer, list(milestones), gamma)
    if not warmup:
        return schedule
    rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return ChainedScheduler([schedule, rise], optimizer)


def _cosine(optimizer: Optimizer, epochs: int, warmup: int) -> LRScheduler:
    if not warmup:
        return CosineAnnealingLR(optimizer, epochs)
    rise = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    fall = CosineAnnealingLR(optimizer, max(1, epochs - warmup))
    return SequentialLR(optimizer, [rise, fall], milestones=[warmup])
