"""Records where frozen filters come from.

A layer with a ``seed`` of its own draws them from it. A network of ``models.create(seed=...)``
draws its layers one after another from one generator; each layer records the arguments of the
network and its own name in it. Filters of neither kind may come from a file that holds them, such
as a checkpoint, or from a model of a hub.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from maskedconv.nn.partly_learned import PartlyLearned

_SCALARS = (str, int, float, bool, type(None))


class NetworkOrigin(NamedTuple):
    """Arguments of ``models.create``, and a layer's name in the network that they give.

    The argument ``method`` is a dictionary of the method's name and settings.
    """

    network: dict[str, Any]
    layer: str


class FileOrigin(NamedTuple):
    """Name and SHA-256 of the file that holds the filters."""

    file: str
    sha256: str


class HubOrigin(NamedTuple):
    """Name of a hub's model, and one SHA-256 of all frozen values that come from it."""

    hub: str
    sha256: str


Origin = NetworkOrigin | FileOrigin | HubOrigin


def remember_origin(model: nn.Module, arguments: dict[str, Any]) -> None:
    """Records in every partly learned layer of ``model`` that ``arguments`` made it.

    Arguments that a file cannot hold are not remembered.
    """
    method = arguments.get("method", {})
    values = [value for name, value in arguments.items() if name != "method"]
    values += method.values() if isinstance(method, dict) else [method]
    if all(isinstance(value, _SCALARS) for value in values):
        for name, layer in model.named_modules():
            if isinstance(layer, PartlyLearned):
                set_origin(layer, NetworkOrigin(arguments, name))


def origin_of(layer: PartlyLearned) -> Origin | None:
    """The origin of the layer, or None if it is unknown."""
    return vars(layer).get("_origin")


def set_origin(layer: nn.Module, origin: Origin | None) -> None:
    """Sets or removes the origin of the layer."""
    if origin is None:
        vars(layer).pop("_origin", None)
    else:
        vars(layer)["_origin"] = origin


def networks_of(layers: Iterable[PartlyLearned]) -> list[dict[str, Any]]:
    """Each network that ``layers`` come from, once."""
    found: list[dict[str, Any]] = []
    for origin in map(origin_of, layers):
        if isinstance(origin, NetworkOrigin) and origin.network not in found:
            found.append(origin.network)
    return found
