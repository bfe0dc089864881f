"""Whether a file fits a model: layers, names, shapes, types and shared values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from maskedconv.checkpoint.digests import fingerprint, type_name
from maskedconv.checkpoint.file import Content
from maskedconv.checkpoint.header import Layer
from maskedconv.checkpoint.whole_model import own_names
from maskedconv.methods import method_of
from maskedconv.nn.partly_learned import PartlyLearned


def configuration_of(layer: PartlyLearned) -> Layer:
    """The entry of a layer in a header, without the origin of its values."""
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


class Held(NamedTuple):
    """A tensor of a model, and one of its names in a file.

    The tensor is kept, so that no other one gets its ``id``.
    """

    tensor: Any
    content: Content
    key: str
    path: Path

    def digest(self) -> str:
        return self.content.frozen.get(self.key) or fingerprint(self.content.tensors[self.key])


def compare_shared(
    content: Content, model: nn.Module, path: Path, held: dict[int, Held] | None
) -> None:
    """ValueError if the file has different values for one tensor of the model.

    The file has the names of the model, as of :func:`compare_tensors`.

    Args:
        held: by their ``id``, tensors of other models that are loaded at the same time, and may be
            shared with this one; those of ``model`` are added.
    """
    first = {} if held is None else held
    names = own_names(model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        own = Held(tensor, content, names[name], path)
        other = first.setdefault(id(tensor), own)
        if other is not own and other.digest() != own.digest():
            place = "the file" if other.path == path else str(other.path)
            raise ValueError(
                f"{path}: {own.key} differs from {other.key} in {place}; expected equal values, as "
                "these layers of the model share one tensor"
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
