"""The size of a paper's experiments, and the options that change it. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

from maskedconv.checks import check_int
from maskedconv.runs.config import Option


@dataclass(frozen=True)
class Network:
    """A network as a preset runs it.

    Attributes:
        model: name for ``maskedconv.models.create``.
        lrs: learning rates to run; empty for the recipe's.
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
        folders: names of data sets with a folder of their own on the command line.
        epochs, subset: replace the preset's.
        seeds: number of seeds, starting at 0.
        amp: "bf16" or "off".
        compile: whether training steps run under ``torch.compile``.

    Raises:
        TypeError, ValueError: ``epochs``, ``subset`` or ``seeds`` is no int, or below 1.
    """

    preset: str
    dataset: str | None = None
    folders: frozenset[str] = frozenset()
    epochs: int | None = None
    subset: int | None = None
    seeds: int = 1
    amp: str = "off"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "subset", "seeds"):
            value = getattr(self, name)
            if value is not None:
                check_int(name, value, 1)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The size of a paper's experiments; a paper adds its own attributes.

    Attributes:
        name: "quick", "short" or "paper".
        datasets: the data sets to run on.
        epochs: epochs by experiment, or one number for all of them; see :meth:`epochs_of`.
        batch_size: replaces the recipe's, unless it is None.
        seeds: number of seeds, starting at 0.
        subset: training images per class, or None for all.
        threads: CPU threads of a run, or None for torch's default.
        amp: "bf16" or "off".
        compile: whether training steps run under ``torch.compile``.
    """

    name: str
    datasets: tuple[str, ...]
    epochs: Mapping[str, int] | int = field(default_factory=lambda: MappingProxyType({}))
    batch_size: int | None = None
    seeds: int = 1
    subset: int | None = None
    threads: int | None = None
    amp: str = "off"
    compile: bool = False

    def adapted(self, request: Request) -> Self:
        """This preset with the options of the command line."""
        chosen = replace(self, seeds=request.seeds, amp=request.amp, compile=request.compile)
        if request.dataset is not None:
            chosen = replace(chosen, datasets=(request.dataset,))
        if request.subset is not None:
            chosen = replace(chosen, subset=request.subset)
        if request.epochs is not None:
            chosen = replace(chosen, epochs=request.epochs)
        return chosen

    def epochs_of(self, experiment: str, full: int) -> int:
        """The epochs of a run of ``experiment``; ``full``, those of its recipe, if none are set."""
        return self.epochs if isinstance(self.epochs, int) else self.epochs.get(experiment, full)
