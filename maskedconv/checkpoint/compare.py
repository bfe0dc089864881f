"""Whether a file fits a model: layers, names, shapes, types and shared values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from maskedconv.checkpoint.digests import type_name
from maskedconv.checkpoint.file import Content
from maskedconv.checkpoint.header import Layer, method_of
from maskedconv.nn.partly_learned import PartlyLearned


def configuration_of(layer: PartlyLearned) -> Layer:
    """What a header says of a layer, except where its values come from."""
    return {
        "method": layer.method,
        **layer.configuration(),
        "dtype": type_name(layer.dtype),
    }


def compare_layers(
    saved: Mapping[str, Layer], layers: Mapping[str, PartlyLearned], path: Path
) -> None:
    """ValueError unless the partly learned layers of file and model are the same."""
    if saved.keys() != layers.keys():
        raise ValueError(
            f"{path}: the file has masked layers {sorted(saved)}; the model has {sorted(layers)}"
        )
    for name, layer in layers.items():
        later = method_of(saved[name]).later_defaults
        stored = {**later, **saved[name]}
        for key, value in {**later, **configuration_of(layer)}.items():
            if stored.get(key, value) != value:
                raise ValueError(
                    f"{path}: {name}.{key} is {stored[key]} in the file; the model has {value}"
                )


def compare_shared(content: Content, layers: Mapping[str, PartlyLearned], path: Path) -> None:
    """ValueError if layers that share a frozen weight have different ones in the file."""
    first: dict[int, str] = {}
    for name, layer in layers.items():
        for buffer in layer.frozen_buffers():
            key = f"{name}.{buffer}".lstrip(".")
            other = first.setdefault(id(getattr(layer, buffer)), key)
            if content.frozen.get(key) != content.frozen.get(other):
                raise ValueError(
                    f"{path}: {key} differs from {other} in the file; expected equal values, as "
                    "these layers of the model share one frozen weight"
                )


def compare_tensors(content: Content, state: Mapping[str, Tensor], path: Path) -> None:
    """ValueError unless file and model have the same names, shapes and types."""
    names = content.tensors.keys() | content.frozen.keys()
    if names != state.keys():
        missing, surplus = sorted(state.keys() - names), sorted(names - state.keys())
        raise ValueError(
            f"{path} is of another model: only the model has {missing}; only the file has {surplus}"
        )
    for key, tensor in content.tensors.items():
        expected = state[key]
        if tensor.shape != expected.shape:
            raise ValueError(_differs(path, key, list(tensor.shape), list(expected.shape)))
        if tensor.dtype != expected.dtype:
            raise ValueError(
                _differs(path, key, type_name(tensor.dtype), type_name(expected.dtype))
            )


def _differs(path: Path, key: str, file: Any, model: Any) -> str:
    return f"{path}: {key} is {file} in the file; the model has {model}"
