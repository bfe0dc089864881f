"""Frozen filters: where a checkpoint says they come from, and how they are found again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskedconv import methods
from maskedconv.checkpoint.file import Content, fingerprint
from maskedconv.nn.origin import FileOrigin, NetworkOrigin, Origin, origin_of
from maskedconv.nn.partly_learned import PartlyLearned


def place_of(layer: PartlyLearned, networks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The origin of a layer's frozen filters, as a header has it.

    Args:
        networks: of the header.
    """
    origin = origin_of(layer)
    if isinstance(origin, NetworkOrigin):
        return {"network": networks.index(origin.network), "layer": origin.layer}
    return origin and origin._asdict()


def origin_in(content: Content, name: str, path: Path) -> Origin | None:
    """The origin of the frozen filters of a layer; the file itself if it names no other."""
    layer = content.layers[name]
    place = layer.get("origin")
    if place is None:
        known = layer["seed"] is not None or not content.digest
        return None if known else FileOrigin(path.name, content.digest)
    if "file" in place:
        return FileOrigin(place["file"], place["sha256"])
    return NetworkOrigin(content.networks[place["network"]], place["layer"])


def find_frozen(
    content: Content, state: dict[str, Tensor], layers: dict[str, PartlyLearned], path: Path
) -> dict[str, Tensor]:
    """The frozen filters that the file leaves out: the model's own, or drawn again."""
    origins, found = Origins(), {}
    for key in content.frozen:
        if key not in content.tensors:
            candidates = _candidates(key, content, state[key], layers, origins)
            right = (one for one in candidates if fingerprint(one) == content.frozen[key])
            try:
                tensor = next(right, None)
            except ValueError as error:
                raise ValueError(f"{path}, header: {key} cannot be drawn again: {error}") from None
            if tensor is None:
                fault = (
                    "is on the meta device"
                    if state[key].is_meta
                    else "is not what the file was saved with (SHA-256)"
                )
                raise ValueError(
                    f"{path}: {key} of the model {fault}, and the file neither holds it nor gives "
                    "it by a seed; expected a model made with the same seed, "
                    f"{_holder(content, key)}"
                )
            found[key] = tensor
    return found


def _candidates(
    key: str,
    content: Content,
    own: Tensor,
    layers: dict[str, PartlyLearned],
    origins: Origins,
) -> Iterator[Tensor]:
    """Candidates for the frozen filters, cheapest first."""
    name, _, buffer = key.rpartition(".")
    if not own.is_meta:
        yield own
    seed = content.layers[name]["seed"]
    if seed is not None:
        yield getattr(layers[name].drawn_from(seed), buffer)
    place = content.layers[name].get("origin") or {}
    if "network" in place:
        origin = NetworkOrigin(content.networks[place["network"]], place["layer"])
        drawn = origins.draw(origin, buffer, own.dtype)
        if drawn is not None:
            yield drawn


def _holder(content: Content, key: str) -> str:
    """The file that has the frozen filters, as far as it is known."""
    place = content.layers[key.rpartition(".")[0]].get("origin") or {}
    if "file" in place:
        return f"or its filters loaded from {place['file']} (SHA-256 {place['sha256']})"
    return "or a file of save(..., frozen=True)"


class Origins:
    """Draws layers again; a network is made once, on the CPU."""

    def __init__(self) -> None:
        self._made: list[tuple[dict[str, Any], nn.Module]] = []

    def draw(self, origin: NetworkOrigin, buffer: str, dtype: torch.dtype) -> Tensor | None:
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
            model = models.create(**_with_method(arguments))
        self._made.append((arguments, model))
        return model


def _with_method(arguments: dict[str, Any]) -> dict[str, Any]:
    """``arguments`` with the method itself in place of its name and settings."""
    if "method" not in arguments:
        return arguments
    return {**arguments, "method": methods.make(**arguments["method"])}
