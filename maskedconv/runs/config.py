"""What one training run is: every setting that its result depends on, and the key made of them.

Free of torch, so that the commands can plan without loading it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from maskedconv.checks import check_choice
from maskedconv.optim import OPTIMIZERS, SCHEDULES
from maskedconv.slices import SLICE_DIMS, check_frozen, check_learned, check_slice_dim
from maskedconv.training.precision import AMP

TRAINED = ("all", "bn", "conv1", "block1", "block2", "block3", "fc")
INITS = ("he", "authors")
# The beta1 that Adam is run with: its place in a configuration is the momentum.
ADAM_MOMENTUM = 0.9
_KEY = re.compile(r"[0-9a-f]{16}")
# Settings of a network that are fields of their own, or follow from the images.
_NO_OPTIONS = frozenset(
    (
        *("learned", "slice_dim", "frozen", "seed", "init", "bn_learned", "dropout"),
        *("num_classes", "in_channels", "image_size"),
    )
)
Option = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run.

    Attributes:
        model: a name that ``maskedconv.models.create`` knows.
        dataset: a name that ``maskedconv.data.load`` knows.
        learned: fraction (float) or number (int) of slices learned in every convolution.
        slice_dim: 0 output filters, 1 input channels, 2 and 3 kernel rows and columns.
        frozen: what the rest is: "random" or "zero".
        trained: "all", or the only part learned beside BatchNorm's affine parameters (table 1).
        bn_learned: whether BatchNorm's affine parameters are learned.
        init: "he" or "authors" (see the models' own documentation).
        epochs, batch_size, lr, momentum, weight_decay, nesterov: of the optimizer. Adam's
            momentum is its beta1, YellowFin's where it starts.
        milestones, gamma: epochs after which the learning rate is multiplied by ``gamma``.
        schedule: "step" for that, "cosine" to decay the learning rate to zero instead.
        dropout: of networks that have it.
        seed: of the weights, the order of the images and their augmentation.
        subset: training images per class, or None for all of them.
        options: further options of the model as (name, value) pairs.
        optimizer: "sgd", "adam" or "yellowfin".
        keep: whether the final weights are stored, and described in the row.
        start: key of a run that keeps its weights, from which this one starts; "" for random ones.
        members: 0 for one network, or how many copies of the start are trained as an ensemble;
            what they do not learn is frozen at the start's values.
        amp: "bf16" to compute in bfloat16 under autocast, "off" for float32.

    Raises:
        TypeError, ValueError: naming the field, what came and what was expected.
    """

    model: str
    dataset: str
    learned: float | int
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    milestones: tuple[int, ...]
    gamma: float
    slice_dim: int = 0
    frozen: str = "random"
    trained: str = "all"
    bn_learned: bool = True
    init: str = "he"
    nesterov: bool = False
    schedule: str = "step"
    dropout: float = 0.0
    seed: int = 0
    subset: int | None = None
    options: tuple[tuple[str, Option], ...] = ()
    optimizer: str = "sgd"
    keep: bool = False
    start: str = ""
    members: int = 0
    amp: str = "off"

    def __post_init__(self) -> None:
        check_learned(self.learned)
        check_slice_dim(self.slice_dim)
        check_frozen(self.frozen)
        check_choice("trained", self.trained, TRAINED)
        check_choice("init", self.init, INITS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("amp", self.amp, AMP)
        for name, smallest in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("members", 0)):
            _check_int(name, getattr(self, name), smallest)
        if self.subset is not None:
            _check_int("subset", self.subset, 1)
        for name in ("lr", "momentum", "weight_decay", "gamma", "dropout"):
            # 1 and 1.0 are the same learning rate and must give the same key.
            object.__setattr__(self, name, _check_float(name, getattr(self, name)))
        if self.lr == 0 or self.dropout >= 1:
            raise ValueError(
                f"lr is {self.lr} and dropout is {self.dropout}; expected lr > 0 and dropout < 1"
            )
        self._check_parts()
        self._check_optimizer()
        self._check_schedule()
        self._check_ensemble()
        self._check_options()
        object.__setattr__(self, "options", tuple(sorted((n, v) for n, v in self.options)))

    def _check_parts(self) -> None:
        if self.trained == "bn" and not self.bn_learned:
            raise ValueError("trained is 'bn' and bn_learned is False: nothing would be learned")
        if self.learns_all_slices and (self.slice_dim or self.frozen != "random"):
            raise ValueError(
                f"slice_dim is {self.slice_dim} and frozen is {self.frozen!r}; expected 0 and "
                "'random' with learned 1.0, which leaves no slice frozen"
            )

    def _check_schedule(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for epoch in self.milestones:
            _check_int("milestones", epoch, 1)
        if self.schedule == "cosine" and self.milestones:
            raise ValueError(f"milestones is {self.milestones}; expected none with schedule cosine")

    def _check_options(self) -> None:
        names = [name for name, _ in self.options]
        if double := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"option {double[0]} is given twice")
        if taken := sorted(set(names) & _NO_OPTIONS):
            raise ValueError(
                f"option {taken[0]} is none of the model's own here; it has a setting of its own "
                "or follows from the images"
            )

    def _check_optimizer(self) -> None:
        if self.optimizer == "adam" and self.momentum != ADAM_MOMENTUM:
            raise ValueError(
                f"momentum is {self.momentum}; expected {ADAM_MOMENTUM}, the beta1 of adam"
            )
        if self.optimizer != "sgd" and self.nesterov:
            raise ValueError(f"nesterov is True; expected False with optimizer {self.optimizer}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is True; expected a momentum above 0 with it")

    def _check_ensemble(self) -> None:
        if self.start and not _KEY.fullmatch(self.start):
            raise ValueError(f"start is {self.start!r}; expected the key of a run, 16 hex digits")
        if self.members == 1:
            raise ValueError("members is 1; expected 0 (one network) or at least 2")
        if self.members and not self.start:
            raise ValueError(f"members is {self.members}; expected start to name their first run")
        if self.members and self.keep:
            raise ValueError("keep is True; the weights of an ensemble's members are not kept")

    @property
    def key(self) -> str:
        """Sixteen hex digits that name the run.

        Fields at their default are left out of what is hashed, so that a field added in a later
        version leaves the keys of the runs that do not use it, and their results, as they are.
        """
        kept = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        if self.trained != "all" and not self.bn_learned:
            # Such runs learned BatchNorm once, and may not pass for ones that do not.
            kept["bn_learned"] = "never"
        text = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def learns_all_slices(self) -> bool:
        """Whether ``learned`` is the fraction 1.0 (and not the count 1)."""
        return isinstance(self.learned, float) and self.learned == 1.0

    @property
    def all_epochs(self) -> int:
        """Epochs of all members of an ensemble together; of a single network, its own."""
        return self.epochs * max(1, self.members)

    def to_json(self) -> dict[str, Any]:
        """Every field as a JSON value; tuples become lists."""
        values = asdict(self)
        values["milestones"] = list(self.milestones)
        values["options"] = [[name, value] for name, value in self.options]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunConfig:
        """The inverse of :meth:`to_json`; ValueError naming fields that are unknown or missing."""
        known = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"config has unknown fields {', '.join(unknown)}")
        if missing := sorted(required - set(values)):
            raise ValueError(f"config lacks the fields {', '.join(missing)}")
        options = tuple((name, value) for name, value in values.get("options", ()))
        return cls(**{**values, "options": options})

    def label(self) -> str:
        """Short text for progress lines, ``wrn_28_4 p=.1 random, cifar10, 10 epochs`` and so on."""
        parts = [self.model, self._label_learned()]
        if self.slice_dim:
            parts.append(f"of {SLICE_DIMS[self.slice_dim]}")
        if not self.learns_all_slices:
            parts.append(self.frozen)
        if not self.bn_learned:
            parts.append("without BN")
        if self.init != "he":
            parts.append(f"init {self.init}")
        if self.members:
            parts.append(f"{self.members} members")
        if self.optimizer != "sgd":
            parts.append(self.optimizer)
        if self.amp != "off":
            parts.append(self.amp)
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        rest = (self.dataset, epochs, f"lr {_short(self.lr)}", f"seed {self.seed}")
        return ", ".join((" ".join(parts), *rest))

    def _label_learned(self) -> str:
        if self.trained != "all":
            return f"only {self.trained}"
        if isinstance(self.learned, int):
            return f"k={self.learned}"
        return "all weights" if self.learns_all_slices else f"p={_short(self.learned)}"

    def with_seed(self, seed: int) -> RunConfig:
        """The same run from another seed."""
        return replace(self, seed=seed)


def _short(number: float) -> str:
    text = f"{number:g}"
    return text.removeprefix("0") if text.startswith("0.") else text


def _check_int(name: str, value: int, smallest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); expected an int")
    if value < smallest:
        raise ValueError(f"{name} is {value}; expected at least {smallest}")


def _check_float(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); expected a number")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value}; expected a finite number >= 0")
    return float(value)
