"""The size of a paper's experiments, and the options that change it. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from maskedconv.runs.config import Option


@dataclass(frozen=True)
class Network:
    """A network as a preset runs it.

    Attributes:
        model: name for ``maskedconv.models.create``.
        lrs: learning rates to run; empty for the one of the model's recipe.
        options: further options of the model.
    """

    model: str
    lrs: tuple[float, ...] = ()
    options: tuple[tuple[str, Option], ...] = ()


@dataclass(frozen=True)
class Request:
    """The options of the command line that change a preset.

    Attributes:
        preset: name of the preset.
        dataset: replaces every data set of the preset.
        folders: data sets whose folder is given by name.
        epochs, subset: replace the preset's.
        seeds: how many seeds, from 0.
        amp: "bf16" or "off".

    Raises:
        ValueError: ``epochs``, ``subset`` or ``seeds`` is below 1.
    """

    preset: str
    dataset: str | None = None
    folders: frozenset[str] = frozenset()
    epochs: int | None = None
    subset: int | None = None
    seeds: int = 1
    amp: str = "off"

    def __post_init__(self) -> None:
        for name in ("epochs", "subset", "seeds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The size of a paper's experiments; a paper adds its own attributes.

    Attributes:
        name: "quick", "short" or "paper".
        datasets: the data sets to run on.
        epochs: by experiment; the recipe of the network decides where an experiment is missing.
        batch_size: replaces the recipes', unless it is None.
        seeds: how many seeds, from 0.
        subset: training images per class, or None for all.
        threads: CPU threads of a run, or None for torch's choice.
        amp: "bf16" or "off".
    """

    name: str
    datasets: tuple[str, ...]
    epochs: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    batch_size: int | None = None
    seeds: int = 1
    subset: int | None = None
    threads: int | None = None
    amp: str = "off"
