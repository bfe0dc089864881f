"""The parts of a run's configuration besides training: model, method, data. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from maskedconv.checks import check_choice, check_int, check_number
from maskedconv.slices import check_frozen, check_learned, check_slice_dim

TRAINED = ("all", "bn", "conv1", "block1", "block2", "block3", "fc")
INITS = ("he", "authors")
# Options of a network that are fields of the configuration or follow from the images.
_NO_OPTIONS = frozenset(
    (
        *("learned", "slice_dim", "frozen", "seed", "init", "bn_learned", "dropout"),
        *("num_classes", "in_channels", "image_size"),
    )
)
Option = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network.

    Attributes:
        model: a name that ``maskedconv.models.create`` knows.
        init: "he" or "authors" (see the models' own documentation).
        dropout: dropout probability, for networks that have dropout.
        options: further options of the model as (name, value) pairs.
    """

    model: str
    init: str = "he"
    dropout: float = 0.0
    options: tuple[tuple[str, Option], ...] = ()

    def __post_init__(self) -> None:
        self._check_model()

    def _check_model(self) -> None:
        check_choice("init", self.init, INITS)
        object.__setattr__(self, "dropout", check_number("dropout", self.dropout))
        if self.dropout >= 1:
            raise ValueError(f"dropout is {self.dropout}; expected a number below 1")
        names = [name for name, _ in self.options]
        if double := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"option {double[0]} is given twice")
        if taken := sorted(set(names) & _NO_OPTIONS):
            raise ValueError(
                f"option {taken[0]} is given as a model option; expected none, as it has its own "
                "setting or follows from the images"
            )
        object.__setattr__(self, "options", tuple(sorted((n, v) for n, v in self.options)))


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """The part of the network that is learned.

    Attributes:
        learned: fraction (float) or number (int) of slices learned in every convolution.
        slice_dim: 0 output filters, 1 input channels, 2 and 3 kernel rows and columns.
        frozen: the values of the other slices, "random" or "zero".
        trained: "all", or the only part learned besides BatchNorm's affine parameters (table 1).
        bn_learned: whether BatchNorm's affine parameters are learned.
    """

    learned: float | int
    slice_dim: int = 0
    frozen: str = "random"
    trained: str = "all"
    bn_learned: bool = True

    def __post_init__(self) -> None:
        self._check_method()

    def _check_method(self) -> None:
        check_learned(self.learned)
        check_slice_dim(self.slice_dim)
        check_frozen(self.frozen)
        check_choice("trained", self.trained, TRAINED)
        if self.trained == "bn" and not self.bn_learned:
            raise ValueError("trained is 'bn' and bn_learned is False: nothing would be learned")
        if self.learns_all_slices and (self.slice_dim or self.frozen != "random"):
            raise ValueError(
                f"slice_dim is {self.slice_dim} and frozen is {self.frozen!r}; expected 0 and "
                "'random' with learned 1.0, which leaves no slice frozen"
            )

    @property
    def learns_all_slices(self) -> bool:
        """Whether ``learned`` is the fraction 1.0 (and not the count 1)."""
        return isinstance(self.learned, float) and self.learned == 1.0


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images.

    Attributes:
        dataset: a name that ``maskedconv.data.load`` knows.
        subset: training images per class, or None for all of them.
    """

    dataset: str
    subset: int | None = None

    def __post_init__(self) -> None:
        self._check_data()

    def _check_data(self) -> None:
        if self.subset is not None:
            check_int("subset", self.subset, 1)
