"""Records the origin of frozen filters, so that they can be drawn again.

A network of ``models.create(seed=...)`` draws its layers one after another from one generator. Each
layer records the arguments of the network and its own name in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from maskedconv.nn.partly_learned import PartlyLearned

_SCALARS = (str, int, float, bool, type(None))


class Origin(NamedTuple):
    """Arguments of ``models.create``, and a layer's name in the network that they give."""

    network: dict[str, Any]
    layer: str


def remember_origin(model: nn.Module, arguments: dict[str, Any]) -> None:
    """Records in every partly learned layer of ``model`` that ``arguments`` made it.

    Arguments that a file cannot hold are not remembered.
    """
    if all(isinstance(value, _SCALARS) for value in arguments.values()):
        for name, layer in model.named_modules():
            if isinstance(layer, PartlyLearned):
                set_origin(layer, Origin(arguments, name))


def origin_of(layer: PartlyLearned) -> Origin | None:
    """The origin of the layer, or None if it is unknown."""
    return vars(layer).get("_origin")


def set_origin(layer: PartlyLearned, origin: Origin | None) -> None:
    """Sets or removes the origin of the layer."""
    if origin is None:
        vars(layer).pop("_origin", None)
    else:
        vars(layer)["_origin"] = origin


def networks_of(origins: Sequence[Origin]) -> list[dict[str, Any]]:
    """Each network of ``origins`` once."""
    found: list[dict[str, Any]] = []
    for origin in origins:
        if origin.network not in found:
            found.append(origin.network)
    return found
