"""An experiment as a list of runs. Does not import torch; recipes come from the models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from maskedconv.runs.config import RunConfig
from maskedconv.runs.preset import Network, Preset

P = TypeVar("P", bound=Preset)
ALL_WEIGHTS = 1.0
_OF_RECIPES = (
    *("lr", "momentum", "weight_decay", "milestones", "gamma", "nesterov", "schedule", "warmup"),
)


@dataclass(frozen=True)
class Experiment(Generic[P]):
    """A figure or table of a paper.

    Attributes:
        id: name on the command line.
        title: title in reports and listings.
        reference: figure or table in the paper.
        runs: creates the runs for a preset; a run comes after the one that it starts from.
    """

    id: str
    title: str
    reference: str
    runs: Callable[[P], list[RunConfig]]


def recipe_run(
    preset: Preset,
    experiment: str,
    network: Network,
    learned: float | int = ALL_WEIGHTS,
    **fields: Any,
) -> RunConfig:
    """A run configured by the recipe of its network; ``fields`` override the recipe."""
    from maskedconv.models import recipe

    found = recipe(network.model)
    recipe_fields = {
        "batch_size": preset.batch_size or found.batch_size,
        "epochs": preset.epochs.get(experiment, found.epochs),
        "subset": preset.subset,
        "amp": preset.amp,
        "compile": preset.compile,
        **{name: getattr(found, name) for name in _OF_RECIPES},
    }
    return RunConfig(
        model=network.model,
        learned=learned,
        options=network.options,
        **{**recipe_fields, **fields},
    )


def scaled_milestones(milestones: Sequence[int], full_epochs: int, epochs: int) -> tuple[int, ...]:
    """``milestones`` of a run of ``full_epochs``, scaled to a run of ``epochs``."""
    return tuple(max(1, round(epoch * epochs / full_epochs)) for epoch in milestones)
