"""Records the origin of frozen filters, so that they can be drawn again.

A network of ``models.create(seed=...)`` draws its layers one after another from one generator. Each
layer records the arguments of the network and its own name in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskedconv.nn import MaskedConv2d

_SCALARS = (str, int, float, bool, type(None))


class Origin(NamedTuple):
    """Arguments of ``models.create``, and a layer's name in the network that they give."""

    network: dict[str, Any]
    layer: str


def remember_origin(model: nn.Module, arguments: dict[str, Any]) -> None:
    """Records in every masked layer of ``model`` that ``arguments`` made it.

    Arguments that a file cannot hold are not remembered.
    """
    if all(isinstance(value, _SCALARS) for value in arguments.values()):
        for name, layer in model.named_modules():
            if isinstance(layer, MaskedConv2d):
                set_origin(layer, Origin(arguments, name))


def origin_of(layer: MaskedConv2d) -> Origin | None:
    """The origin of the layer, or None if it is unknown."""
    return vars(layer).get("_origin")


def set_origin(layer: MaskedConv2d, origin: Origin | None) -> None:
    """Sets or removes the origin of the layer."""
    if origin is None:
        vars(layer).pop("_origin", None)
    else:
        vars(layer)["_origin"] = origin


class Origins:
    """Draws layers again; a network is made once, on the CPU."""

    def __init__(self) -> None:
        self._made: list[tuple[dict[str, Any], nn.Module]] = []

    def draw(self, origin: Origin, buffer: str, dtype: torch.dtype) -> Tensor | None:
        """The frozen filters or their bias as they started; None if the layer has none.

        Raises:
            ValueError: there is no such network, or no such layer in it.
        """
        try:
            layer = self._network(origin.network).get_submodule(origin.layer)
        except (AttributeError, TypeError, ValueError, RuntimeError, MemoryError) as error:
            raise ValueError(f"{origin.layer} of {dict(origin.network)} ({error})") from None
        tensor = getattr(layer, buffer, None)
        return None if tensor is None else tensor.to(dtype)

    def _network(self, arguments: dict[str, Any]) -> nn.Module:
        from maskedconv import models

        for known, model in self._made:
            if known == arguments:
                return model
        # Whoever made the model has been warned of what its arguments are.
        with torch.device("cpu"), warnings.catch_warnings(action="ignore"):
            model = models.create(**arguments)
        self._made.append((arguments, model))
        return model


def networks_of(origins: Sequence[Origin]) -> list[dict[str, Any]]:
    """Each network of ``origins`` once."""
    found: list[dict[str, Any]] = []
    for origin in origins:
        if origin.network not in found:
            found.append(origin.network)
    return found
