"""The parts of a run's configuration besides training: model, method, data. Needs no torch.

``RunConfig`` calls the check of each part.
"""

from __future__ import annotations

from dataclasses import dataclass

from maskedconv.checks import check_choice, check_dropout, check_int
from maskedconv.slices import check_frozen, check_learned, check_slice_dim

TRAINED = ("all", "bn", "conv1", "block1", "block2", "block3", "shortcuts", "fc")
SLICE = "slice"
INITS = ("he", "authors", "default")
# Options of a network that are fields of the configuration or follow from the images.
_NO_OPTIONS = frozenset(
    (
        *("learned", "slice_dim", "frozen", "seed", "init", "bn_learned", "dropout"),
        *("num_classes", "in_channels", "image_size"),
    )
)
Option = str | int | float | bool
Options = tuple[tuple[str, Option], ...]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network.

    Attributes:
        model: a name that ``maskedconv.models.create`` knows.
        init: "he", "authors" or "default" (see :func:`maskedconv.models.create`).
        dropout: dropout probability, for networks that have dropout.
        options: further options of the model as (name, value) pairs.
    """

    model: str
    init: str = "he"
    dropout: float = 0.0
    options: Options = ()

    def _check_model(self) -> None:
        check_choice("init", self.init, INITS)
        object.__setattr__(self, "dropout", check_dropout(self.dropout))
        options = _sorted_options("option", self.options)
        if taken := sorted({name for name, _ in options} & _NO_OPTIONS):
            raise ValueError(
                f"option {taken[0]} is given as a model option; expected none, as it has its own "
                "setting or follows from the images"
            )
        object.__setattr__(self, "options", options)


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """The part of the network that is learned.

    Attributes:
        learned: fraction (float) or number (int) of slices learned in every convolution.
        slice_dim: 0 output filters, 1 input channels, 2 and 3 kernel rows and columns.
        frozen: the values of the other slices, "random" or "zero".
        trained: "all", or the only part learned besides BatchNorm's affine parameters (table 1), or
            several of them, such as "shortcuts+fc".
        bn_learned: whether BatchNorm's affine parameters are learned.
        method: name of a method of ``maskedconv.methods``. Another than "slice" does not use
            ``learned``, ``slice_dim`` and ``frozen``, which then have their defaults (1.0, 0 and
            "random").
        method_options: settings of another method than "slice" as (name, value) pairs.
    """

    learned: float | int
    slice_dim: int = 0
    frozen: str = "random"
    trained: str = "all"
    bn_learned: bool = True
    method: str = SLICE
    method_options: Options = ()

    def _check_method(self) -> None:
        check_learned(self.learned)
        check_slice_dim(self.slice_dim)
        check_frozen(self.frozen)
        self._check_trained()
        options = _sorted_options("method option", self.method_options)
        object.__setattr__(self, "method_options", options)
        if self.method == SLICE and options:
            raise ValueError(
                f"method option {options[0][0]} is given with method 'slice'; expected learned, "
                "slice_dim and frozen instead"
            )
        everything = isinstance(self.learned, float) and self.learned == 1.0
        if self.method != SLICE and not everything:
            raise ValueError(
                f"learned is {self.learned} and method is {self.method!r}; expected learned 1.0, "
                "as only the method 'slice' uses it"
            )
        if everything and (self.slice_dim or self.frozen != "random"):
            raise ValueError(
                f"slice_dim is {self.slice_dim} and frozen is {self.frozen!r}; expected 0 and "
                "'random' with learned 1.0, which leaves no slice frozen"
            )

    def _check_trained(self) -> None:
        parts = self.trained_parts
        for part in parts if len(parts) > 1 else ():
            check_choice("trained", part, TRAINED[1:])
        if len(parts) == 1:
            check_choice("trained", self.trained, TRAINED)
        if len(set(parts)) < len(parts):
            raise ValueError(f"trained is {self.trained!r}; expected each part once")
        if "bn" in parts and not self.bn_learned:
            nothing = ": nothing would be learned" if parts == ("bn",) else ""
            raise ValueError(f"trained is {self.trained!r} and bn_learned is False{nothing}")
        object.__setattr__(self, "trained", "+".join(sorted(parts, key=TRAINED.index)))

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """The parts that ``trained`` names."""
        return tuple(self.trained.split("+"))

    @property
    def learns_all_slices(self) -> bool:
        """Whether the method is "slice" with the fraction 1.0 (and not the count 1)."""
        everything = isinstance(self.learned, float) and self.learned == 1.0
        return self.method == SLICE and everything


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images.

    Attributes:
        dataset: a name that ``maskedconv.data.load`` knows.
        subset: training images per class, or None for all of them.
        test_subset: test images per class, or None for all of them.
    """

    dataset: str
    subset: int | None = None
    test_subset: int | None = None

    def _check_data(self) -> None:
        for name in ("subset", "test_subset"):
            if (count := getattr(self, name)) is not None:
                check_int(name, count, 1)


def _sorted_options(argument: str, options: Options) -> Options:
    """``options`` by name; ValueError if a name is there twice."""
    names = [name for name, _ in options]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{argument} {double[0]} is given twice")
    return tuple(sorted((name, value) for name, value in options))


def options_text(options: Options, separator: str = ", ") -> str:
    """The options as text, such as ``width=0.5, pool=true``."""
    return separator.join(f"{name}={value}" for name, value in options)
