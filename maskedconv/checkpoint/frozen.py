"""Frozen values of a model: which they are, and how those that a file leaves out are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from maskedconv.checkpoint.digests import fingerprint
from maskedconv.checkpoint.file import Content
from maskedconv.checkpoint.sources import Origins, described_source
from maskedconv.checkpoint.whole_model import frozen_buffer_names, own_names, partly_learned
from maskedconv.nn.origin import NetworkOrigin
from maskedconv.nn.partly_learned import PartlyLearned

_NAMED = 4  # names that a message lists


def frozen_keys(model: nn.Module) -> list[str]:
    """Names of the values that learning leaves as they are, in the order of the state dict.

    They are the frozen filters of its layers and, in a model that learns anything, all parameters
    that do not require a gradient. Buffers of other layers, such as running statistics, count as
    learned.
    """
    own = frozen_buffer_names(partly_learned(model))
    learns = any(parameter.requires_grad for parameter in model.parameters())
    state = model.state_dict(keep_vars=True)
    return [
        name
        for key, name in own_names(model).items()
        if name in own
        or (learns and isinstance(state[key], nn.Parameter) and not state[key].requires_grad)
    ]


def find_frozen(
    content: Content,
    state: dict[str, Tensor],
    layers: dict[str, PartlyLearned],
    path: Path,
    others: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The frozen values that the file leaves out: the model's own, of ``others``, or drawn again.

    Args:
        others: values of another file, by the same names.
    """
    origins, found, lost = Origins(), {}, []
    for key in content.frozen:
        if key not in content.tensors:
            near = [one for one in (state[key], others.get(key)) if one is not None]
            drawn = _drawn(key, content, state[key], layers, origins)
            candidates = chain((one for one in near if not one.is_meta), drawn)
            right = (one for one in candidates if fingerprint(one) == content.frozen[key])
            try:
                tensor = next(right, None)
            except ValueError as error:
                raise ValueError(f"{path}, header: {key} cannot be drawn again: {error}") from None
            if tensor is None:
                lost.append(key)
            else:
                found[key] = tensor
    if lost:
        raise ValueError(f"{path}: {_lost(lost, content, state)}")
    return found


def is_drawn_again(
    key: str, content: Content, own: Tensor, layers: dict[str, PartlyLearned], origins: Origins
) -> bool:
    """Whether a seed or a network in the header gives the value ``own`` of the model."""
    try:
        drawn = _drawn(key, content, own, layers, origins)
        return any(fingerprint(one) == content.frozen[key] for one in drawn)
    except ValueError:
        return False


def _drawn(
    key: str, content: Content, own: Tensor, layers: dict[str, PartlyLearned], origins: Origins
) -> Iterator[Tensor]:
    """The value as it starts by the seed of its layer, or in a network that the file names."""
    name, _, attribute = key.rpartition(".")
    layer = content.layers.get(name)
    if layer is not None and layer["seed"] is not None:
        drawn = layers[name].drawn_from(layer["seed"])
        yield getattr(drawn, attribute).detach()
        if own.dtype != torch.float32:
            # A layer that was drawn as float32, and cast after that, as by ``half()``.
            wide = drawn.float().drawn_from(layer["seed"])
            yield getattr(wide, attribute).detach().to(own.dtype)
    for origin in _places(name, content):
        values = origins.draw(origin, attribute, own.dtype)
        if values is not None:
            yield values


def _places(name: str, content: Content) -> list[NetworkOrigin]:
    """The layers of networks in which the layer ``name`` may have started."""
    if name not in content.layers:
        return [NetworkOrigin(network, name) for network in content.networks]
    place = content.layers[name].get("origin") or {}
    if "network" not in place:
        return []
    return [NetworkOrigin(content.networks[place["network"]], place["layer"])]


def _lost(lost: list[str], content: Content, state: Mapping[str, Tensor]) -> str:
    """Says which frozen values are not found, by layer, and which model has them."""
    first = lost[0]
    fault = (
        "is on the meta device"
        if state[first].is_meta
        else "is not what the file was saved with (SHA-256)"
    )
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in lost))
    every = dict.fromkeys(key.rpartition(".")[0] for key in content.frozen)
    listed = ", ".join(layers[:_NAMED]) + (", ..." if len(layers) > _NAMED else "")
    made = "".join(f"; the file's is models.create(**{network})" for network in content.networks)
    return (
        f"{first} of the model {fault}, and the file neither holds it nor gives it by a seed. "
        f"{len(layers)} of {len(every)} layers with frozen values differ: {listed}. Expected a "
        f"model made with the same seed and arguments (the size of the head may change what the "
        f"other layers draw){made}, {described_source(content, first)}"
    )
