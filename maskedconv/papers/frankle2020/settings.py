"""The learned parts of the networks, and their runs. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from maskedconv.report.results import SeedGroup
from maskedconv.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, RED
from maskedconv.runs.config import RunConfig
from maskedconv.runs.preset import Network

BN, BN_FC, BN_SHORTCUTS_FC, ALL, FC, RANDOM = (
    "BN only",
    "BN + output",
    "BN + shortcuts + output",
    "everything",
    "output only",
    "random positions",
)
_CHANNELS = (16, 32, 64)
# γ and β of the ImageNet ResNets, by depth.
_IMAGENET = {18: 9_600, 34: 17_024, 50: 53_120, 101: 105_344, 200: 176_000}


@dataclass(frozen=True)
class Setting:
    """One choice of the learned part.

    Attributes:
        fields: of the run's configuration; ``method_options`` are added for the control.
        colour, marker: in the figures.
    """

    name: str
    fields: Mapping[str, Any]
    colour: str
    marker: str


SETTINGS = (
    Setting(ALL, {}, BLACK, "D"),
    Setting(BN_SHORTCUTS_FC, {"trained": "bn+shortcuts+fc"}, GREEN, "^"),
    Setting(BN_FC, {"trained": "bn+fc"}, ORANGE, "s"),
    Setting(BN, {"method": "norm_only"}, BLUE, "o"),
    Setting(FC, {"trained": "fc", "bn_learned": False}, GREY, "v"),
    Setting(RANDOM, {"method": "random_positions"}, RED, "X"),
)


def fields_of(setting: Setting, network: Network) -> dict[str, Any]:
    """The fields of the configuration that say what ``network`` learns."""
    fields = dict(setting.fields)
    if setting.name == RANDOM:
        fields["method_options"] = (("count", _norm_parameters_of(network)),)
    return fields


def _norm_parameters_of(network: Network) -> int:
    if network.model.startswith("imagenet"):
        return _IMAGENET[depth(network.model)]
    return norm_parameters(depth(network.model), int(dict(network.options).get("width", 1)))


def norm_parameters(depth: int, width: int) -> int:
    """The number of γ and β of a ResNet: first layer, blocks, and two shortcuts."""
    first, middle, last = (width * channels for channels in _CHANNELS)
    blocks = (depth - 2) // 6
    return 2 * (first + 2 * blocks * (first + middle + last) + middle + last)


def depth(model: str) -> int:
    """The depth in the network's name."""
    return int(model.rpartition("_")[2])


def width(config: RunConfig) -> float:
    """The factor of the network's width."""
    return float(dict(config.options).get("width", 1))


def setting_of(config: RunConfig) -> Setting:
    """The setting of a run of this paper."""

    def fits(setting: Setting) -> bool:
        defaults = {"method": "slice", "trained": "all", "bn_learned": True}
        fields = {**defaults, **setting.fields}
        return all(getattr(config, name) == value for name, value in fields.items())

    return next(setting for setting in SETTINGS if fits(setting))


def by_depth(groups: Iterable[SeedGroup]) -> dict[str, dict[float, SeedGroup]]:
    """The groups of the networks of plain width, by setting and depth."""
    plain = [group for group in groups if width(group.config) == 1]
    return _ordered(plain, lambda config: depth(config.model))


def by_width(groups: Iterable[SeedGroup]) -> dict[str, dict[float, SeedGroup]]:
    """The groups of the networks that have several widths, by setting and width."""
    found = list(groups)
    wide = {group.config.model for group in found if width(group.config) != 1}
    return _ordered([group for group in found if group.config.model in wide], width)


def _ordered(
    groups: list[SeedGroup], place: Callable[[RunConfig], float]
) -> dict[str, dict[float, SeedGroup]]:
    series: dict[str, dict[float, SeedGroup]] = {setting.name: {} for setting in SETTINGS}
    for group in sorted(groups, key=lambda group: place(group.config)):
        series[setting_of(group.config).name][place(group.config)] = group
    return {name: found for name, found in series.items() if found}
