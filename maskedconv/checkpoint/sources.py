"""The sources of frozen values that a checkpoint names."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskedconv import methods
from maskedconv.checkpoint.file import Content
from maskedconv.nn.origin import FileOrigin, HubOrigin, NetworkOrigin, Origin, origin_of
from maskedconv.nn.partly_learned import PartlyLearned

_OF_FILES = (".pt", ".pth", ".bin", ".safetensors")


def describe_base(base: str | Path | None, frozen: Mapping[str, str]) -> dict[str, str] | None:
    """The source ``base`` of frozen values as a header has it.

    Args:
        base: a path is a file, a string the name of a hub's model.
        frozen: SHA-256 of each frozen value, by its name.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: a string is the name of a file.
    """
    if isinstance(base, str) and (Path(base).suffix in _OF_FILES or Path(base).is_file()):
        raise ValueError(f"base is {base!r}, the name of a hub's model; expected a Path for a file")
    if isinstance(base, Path):
        with base.open("rb") as file:
            return {"file": base.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    if base is None:
        return None
    listed = "".join(f"{key} {frozen[key]}\n" for key in sorted(frozen))
    return {"hub": base, "sha256": hashlib.sha256(listed.encode()).hexdigest()}


def place_of(layer: PartlyLearned, networks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The origin of a layer's frozen filters, as a header has it.

    Args:
        networks: of the header.
    """
    origin = origin_of(layer)
    if isinstance(origin, NetworkOrigin):
        return {"network": networks.index(origin.network), "layer": origin.layer}
    return origin and origin._asdict()


def origin_in(content: Content, key: str, path: Path) -> Origin | None:
    """The origin of a frozen value; the file itself if it names no other and holds the value."""
    layer = content.layers[key.rpartition(".")[0]]
    place: dict[str, Any] | None = layer.get("origin") or (
        content.base if layer["seed"] is None else None
    )
    if place is None:
        holds = layer["seed"] is None and content.digest and key in content.tensors
        return FileOrigin(path.name, content.digest) if holds else None
    if "network" in place:
        return NetworkOrigin(content.networks[place["network"]], place["layer"])
    return (HubOrigin if "hub" in place else FileOrigin)(**place)


def described_source(content: Content, key: str) -> str:
    """The file or model that has a frozen value, as far as it is known."""
    layer = content.layers.get(key.rpartition(".")[0], {})
    place = layer.get("origin") or content.base or {}
    if "file" in place:
        return f"or its filters loaded from {place['file']} (SHA-256 {place['sha256']})"
    if "hub" in place:
        return f"or the weights of {place['hub']}"
    return "or a file of save(..., frozen=True)"


class Origins:
    """Draws layers again; a network is made once, on the CPU."""

    def __init__(self) -> None:
        self._made: list[tuple[dict[str, Any], nn.Module]] = []

    def draw(self, origin: NetworkOrigin, attribute: str, dtype: torch.dtype) -> Tensor | None:
        """A parameter or buffer as it started; None if the layer has none.

        Raises:
            ValueError: there is no such network, or no such layer in it.
        """
        try:
            layer = self._network(origin.network).get_submodule(origin.layer)
        except (AttributeError, TypeError, ValueError, RuntimeError, MemoryError) as error:
            raise ValueError(f"{origin.layer} of {dict(origin.network)} ({error})") from None
        tensor = getattr(layer, attribute, None)
        return tensor.detach().to(dtype) if isinstance(tensor, Tensor) else None

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
