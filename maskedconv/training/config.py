"""The configuration of one training, checked at construction. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from maskedconv.checks import check_choice, check_int, check_number
from maskedconv.optim import OPTIMIZERS, SCHEDULES
from maskedconv.schema import LARGEST_INT
from maskedconv.training.precision import AMP

# Adam's beta1; a configuration stores it as the momentum.
ADAM_MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained.

    Attributes:
        epochs, batch_size: passes over the training set, and images in a step.
        lr, momentum, weight_decay, nesterov: arguments of the optimizer. Adam's momentum is its
            beta1; YellowFin starts at ``momentum``.
        milestones, gamma: the learning rate is multiplied by ``gamma`` after each of these epochs.
        schedule: "step" uses the milestones; "cosine" decays the learning rate to zero.
        processes: number of processes that share each batch. It changes rounding; BatchNorms, whose
            statistics each process computes of its own part of the batch; dropout; and the last
            batch, if that has fewer than two examples for each process (``data.train_batches``).
        warmup: epochs in which the learning rate rises linearly to that of the schedule; see
            :func:`maskedconv.optim.make_scheduler`.
        optimizer: "sgd", "adam" or "yellowfin".
        seed: seed of the weights, the order of the images and their augmentation.
        amp: "bf16" for autocast to bfloat16, "off" for float32.
        compile: whether the forward pass of a training step runs under ``torch.compile``, which
            changes rounding. On a CPU, a compiled step of wrn_28_4 takes as long as an eager one,
            and compiling takes as long as many steps.

    Raises:
        TypeError, ValueError: naming the field, what came and what was expected.
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    milestones: tuple[int, ...]
    gamma: float
    nesterov: bool = False
    schedule: str = "step"
    seed: int = 0
    optimizer: str = "sgd"
    amp: str = "off"
    compile: bool = False
    warmup: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        self._check_training()

    def _check_training(self) -> None:
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("amp", self.amp, AMP)
        smallest = {"epochs": 1, "processes": 1, "batch_size": 1, "seed": 0, "warmup": 0}
        for name, least in smallest.items():
            check_int(name, getattr(self, name), least, LARGEST_INT)
        if self.batch_size < self.processes:
            raise ValueError(
                f"batch_size is {self.batch_size}; expected at least {self.processes}, an example "
                "for each process"
            )
        for name in ("lr", "momentum", "weight_decay", "gamma"):
            # 1 and 1.0 are the same value and must give the same key.
            object.__setattr__(self, name, check_number(name, getattr(self, name)))
        if self.lr == 0:
            raise ValueError(f"lr is {self.lr}; expected a number above 0")
        self._check_optimizer()
        self._check_schedule()

    def _check_optimizer(self) -> None:
        if self.optimizer == "adam" and self.momentum != ADAM_MOMENTUM:
            raise ValueError(
                f"momentum is {self.momentum}; expected {ADAM_MOMENTUM}, the beta1 of adam"
            )
        if self.optimizer == "yellowfin" and self.momentum >= 1:
            raise ValueError(f"momentum is {self.momentum}; expected below 1 with yellowfin")
        if self.optimizer != "sgd" and self.nesterov:
            raise ValueError(f"nesterov is True; expected False with optimizer {self.optimizer}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is True; expected a momentum above 0 with it")

    def _check_schedule(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for epoch in self.milestones:
            check_int("milestones", epoch, 1, LARGEST_INT)
        if self.schedule == "cosine" and self.milestones:
            raise ValueError(f"milestones is {self.milestones}; expected none with schedule cosine")
