"""The configuration of one training run: every setting that affects its result, and its key.

Does not import torch, so that commands can plan without it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from maskedconv.checks import check_int
from maskedconv.runs.parts import (
    SLICE,
    DataConfig,
    MethodConfig,
    ModelConfig,
    Option,
    Options,
)
from maskedconv.slices import SLICE_DIMS
from maskedconv.training.config import TrainingConfig

__all__ = ["Option", "RunConfig"]

_KEY = re.compile(r"[0-9a-f]{16}")
# Fields that checkpoints of earlier versions lack.
LATER_FIELDS = ("compile", "method", "method_options", "warmup", "test_subset", "processes")
# The order of the fields in JSON and in reports.
_ORDER = (
    *("model", "dataset", "learned", "epochs", "batch_size", "lr", "momentum", "weight_decay"),
    *("milestones", "gamma", "slice_dim", "frozen", "trained", "bn_learned", "init", "nesterov"),
    *("schedule", "dropout", "seed", "subset", "options", "optimizer", "keep", "start"),
    *("members", "amp", *LATER_FIELDS),
)


@dataclass(frozen=True, kw_only=True)
class RunConfig(ModelConfig, MethodConfig, DataConfig, TrainingConfig):
    """One training run: model, method, data, training, and its relation to other runs.

    Each base class checks its own fields.

    Attributes:
        keep: whether the final weights are stored, and described in the row.
        start: key of a run with stored weights, from which this run starts; "" for random weights.
        members: 0 for one network, or the number of copies of the start that are trained as an
            ensemble. Their frozen part has the start's values.

    Raises:
        TypeError, ValueError: a field is invalid; the message has its name, value and constraint.
    """

    keep: bool = False
    start: str = ""
    members: int = 0

    def __post_init__(self) -> None:
        self._check_method()
        self._check_model()
        self._check_data()
        self._check_training()
        self._check_ensemble()

    def _check_ensemble(self) -> None:
        check_int("members", self.members, 0)
        if self.start and not _KEY.fullmatch(self.start):
            raise ValueError(f"start is {self.start!r}; expected the key of a run, 16 hex digits")
        if self.members == 1:
            raise ValueError("members is 1; expected 0 (one network) or at least 2")
        if self.members and not self.start:
            raise ValueError(f"members is {self.members}; expected start to name their first run")
        if self.members and self.keep:
            raise ValueError("keep is True; the weights of an ensemble's members are not kept")
        if self.members and self.processes > 1:
            raise ValueError(f"processes is {self.processes}; expected 1 for an ensemble")

    @property
    def key(self) -> str:
        """Sixteen hex digits that identify the run.

        Fields at their default are not hashed, so that a field added in a later version does not
        change the keys of existing runs.
        """
        kept = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
        if self.trained != "all" and not self.bn_learned:
            # Earlier versions learned BatchNorm in these runs; the key must differ from theirs.
            kept["bn_learned"] = "never"
        text = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def all_epochs(self) -> int:
        """Total epochs: of all members of an ensemble, or of the single network."""
        return self.epochs * max(1, self.members)

    def to_json(self, *, defaults: bool = True) -> dict[str, Any]:
        """The fields as JSON values; tuples become lists.

        Args:
            defaults: whether fields at their default are included.
        """
        names = dict.fromkeys((*_ORDER, *(field.name for field in fields(self))))
        return {
            name: _as_lists(getattr(self, name))
            for name in names
            if defaults or getattr(self, name) != _default(name)
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunConfig:
        """The inverse of :meth:`to_json`; ValueError naming unknown or missing fields."""
        known = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"config has unknown fields {', '.join(unknown)}")
        if missing := sorted(required - set(values)):
            raise ValueError(f"config lacks the fields {', '.join(missing)}")
        return cls(**{name: _as_tuples(value) for name, value in values.items()})

    def label(self) -> str:
        """Short text for progress lines, such as ``wrn_28_4 p=.1 random, cifar10, 10 epochs``."""
        parts = [self.model, *_texts(self.options), self._label_learned()]
        if self.slice_dim:
            parts.append(f"of {SLICE_DIMS[self.slice_dim]}")
        if self.method == SLICE and not self.learns_all_slices:
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
        if self.compile:
            parts.append("compiled")
        if self.processes > 1:
            parts.append(f"by {self.processes} processes")
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        rest = (self.dataset, epochs, f"lr {_short(self.lr)}", f"seed {self.seed}")
        return ", ".join((" ".join(parts), *rest))

    def _label_learned(self) -> str:
        if self.method != SLICE:
            parts = [self.method, *_texts(self.method_options)]
            parts += [f"only {self.trained}"] if self.trained != "all" else []
            return " ".join(parts)
        if self.trained != "all":
            return f"only {self.trained}"
        if isinstance(self.learned, int):
            return f"k={self.learned}"
        return "all weights" if self.learns_all_slices else f"p={_short(self.learned)}"

    def with_seed(self, seed: int) -> RunConfig:
        """The same run with another seed."""
        return replace(self, seed=seed)


def _default(name: str) -> Any:
    return getattr(RunConfig, name, MISSING)


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value


def _texts(options: Options) -> list[str]:
    return [f"{name}={value}" for name, value in options]


def _short(number: float) -> str:
    text = f"{number:g}"
    return text.removeprefix("0") if text.startswith("0.") else text
