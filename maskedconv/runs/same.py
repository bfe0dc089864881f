"""Runs that are one network by construction: asked for in other words, learning the same slices.

Runs of another method than ``slice`` are equal to no other.

One row of a kernel is a tenth of its three rows as well as two fifths of them; five of three rows
are all of the kernel, as five of three columns are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

from maskedconv import data
from maskedconv.runs.config import RunConfig
from maskedconv.runs.parts import SLICE, Options
from maskedconv.runs.store import Loaded
from maskedconv.slices import num_learned

if TYPE_CHECKING:
    from maskedconv.nn.partly_learned import PartlyLearned


def trained_for(configs: Iterable[RunConfig], loaded: Loaded) -> dict[str, RunConfig]:
    """The run that is trained for each of ``configs``, by key.

    This is the run itself if it is finished or has no equal; otherwise the first finished one of
    its equals; otherwise the first of them.
    """
    groups: dict[Any, list[RunConfig]] = {}
    for config in configs:
        groups.setdefault(_network(config), []).append(config)
    found: dict[str, RunConfig] = {}
    for equals in groups.values():
        finished = [config for config in equals if loaded.finished(config.key)]
        first = (finished or equals)[0]
        found |= {run.key: run if run in finished or run is first else first for run in equals}
    return found


def learned_fraction(config: RunConfig) -> float:
    """Fraction of the layers' weights that is learned; 0 if there are too few filters."""
    if config.method != SLICE:
        named = config.method, config.method_options
        return _fraction_of_method(config.model, config.options, _channels(config), named)
    shapes = _weight_shapes_of(config)
    dim = config.slice_dim
    try:
        learned = [num_learned(config.learned, shape[dim], dim) for shape in shapes]
    except ValueError:
        return 0.0
    if not shapes:
        return 1.0  # Without convolutions, everything is learned.
    pairs = list(zip(learned, shapes, strict=True))
    return sum(n * prod(shape) / shape[dim] for n, shape in pairs) / sum(map(prod, shapes))


def _network(config: RunConfig) -> Any:
    """Equal for runs that are one network; the key where the weights are named by it."""
    if config.keep or config.start or config.method != SLICE:
        return config.key
    rest = replace(config, learned=1.0, slice_dim=0, frozen="random").key
    shapes = _weight_shapes_of(config)
    dim = config.slice_dim
    try:
        counts = tuple(num_learned(config.learned, shape[dim], dim) for shape in shapes)
    except ValueError:
        return config.key  # More filters than there are: the run will say so.
    if counts == tuple(shape[dim] for shape in shapes):
        # The authors' beginning is another for a network that is split, if only in words.
        return rest, config.init == "authors" and config.learns_all_slices
    return rest, config.frozen, dim, counts


def _weight_shapes_of(config: RunConfig) -> tuple[tuple[int, ...], ...]:
    return _weight_shapes(config.model, config.options, _channels(config))


def _channels(config: RunConfig) -> int:
    return data.describe(config.dataset).channels


@cache
def _weight_shapes(model: str, options: Options, channels: int) -> tuple[tuple[int, ...], ...]:
    """Shapes ``[O, I, kH, kW]`` of all convolutions of a network."""
    layers = _layers(model, options, channels)
    return tuple(tuple(layer.weight_shape) for layer in layers)


@cache
def _fraction_of_method(
    model: str, options: Options, channels: int, method: tuple[str, Options]
) -> float:
    from maskedconv import methods

    made = methods.make(method[0], **dict(method[1]))
    layers = _layers(model, options, channels, method=made)
    learned = sum(layer.weight_values()[0].numel() for layer in layers)
    return learned / max(1, sum(prod(layer.weight_shape) for layer in layers))


def _layers(model: str, options: Options, channels: int, **method: Any) -> list[PartlyLearned]:
    import torch

    from maskedconv import models
    from maskedconv.nn.global_threshold import refresh_thresholds
    from maskedconv.nn.partly_learned import PartlyLearned

    chosen: dict[str, Any] = {**dict(options), **method}
    with torch.random.fork_rng(devices=()):
        network = models.create(model, in_channels=channels, **chosen)
    refresh_thresholds(network)
    return [layer for layer in network.modules() if isinstance(layer, PartlyLearned)]
