"""An experiment as a list of runs. Does not import torch; recipes come from the models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from maskedconv.runs.config import RunConfig
from maskedconv.runs.preset import Network, Preset
from maskedconv.training.config import ADAM_MOMENTUM

P = TypeVar("P", bound=Preset)
ALL_WEIGHTS = 1.0


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
    found = fields_of_recipe(network.model)
    of_preset = {
        "batch_size": preset.batch_size or found["batch_size"],
        "epochs": preset.epochs_of(experiment, found["epochs"]),
        "subset": preset.subset,
        "amp": preset.amp,
        "compile": preset.compile,
    }
    return RunConfig(
        model=network.model,
        learned=learned,
        options=network.options,
        **{**found, **of_preset, **fields},
    )


def fields_of_recipe(model: str, scale_schedule: bool = False, **given: Any) -> dict[str, Any]:
    """The fields of a :class:`RunConfig` by the recipe of a network, with ``given`` in its place.

    A recipe's Nesterov momentum is left out with another optimizer, whose momentum is by default
    0.9, or 0 for YellowFin, which tunes it. The recipe's dropout is for the run that learns all
    weights, and is not included.

    Args:
        scale_schedule: whether milestones and warm-up are scaled from the recipe's epochs to the
            given ones.
        given: fields of the recipe; None stands for the recipe's value.
    """
    from maskedconv.models import recipe

    found = asdict(recipe(model))
    del found["dropout"]
    chosen = {name: value for name, value in given.items() if value is not None}
    if chosen.get("optimizer", found["optimizer"]) != found["optimizer"]:
        momentum = 0.0 if chosen["optimizer"] == "yellowfin" else ADAM_MOMENTUM
        found |= {"nesterov": False, "momentum": momentum}
    if scale_schedule and "epochs" in chosen:
        full = found["epochs"], found["milestones"], found["warmup"]
        found |= scaled_schedule(*full, chosen["epochs"])
    return found | chosen


def scaled_schedule(
    full_epochs: int, milestones: Sequence[int], warmup: int, epochs: int
) -> dict[str, Any]:
    """Fields of a run of ``epochs``: milestones and warm-up of one of ``full_epochs``, scaled."""
    return {
        "milestones": tuple(max(1, round(one * epochs / full_epochs)) for one in milestones),
        "warmup": round(warmup * epochs / full_epochs),
    }
