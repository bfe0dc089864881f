"""Draws frozen filters again from their origin."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from maskedconv.nn.origin import Origin


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
