"""Checkpoints of the learned part; frozen filters are stored as a seed and a hash.

One safetensors file holds the learned parameters, every other parameter and buffer (BatchNorm
statistics included), and the configuration of the masked layers. For frozen filters it stores the
seed and a SHA-256. Random generators may change between releases, so regenerated filters are
checked against the hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from maskedconv.checkpoint import file
from maskedconv.checkpoint.file import (
    Content,
    Layer,
    fingerprint,
    method_of,
    shapes,
    type_name,
)
from maskedconv.checkpoint.frozen import find_frozen, origin_in, place_of
from maskedconv.checkpoint.whole_model import (
    check_can_materialise,
    materialise,
    own_module_names,
    own_names,
)
from maskedconv.nn.origin import networks_of, set_origin
from maskedconv.nn.partly_learned import PartlyLearned

Model = TypeVar("Model", bound=nn.Module)


def save(
    model: nn.Module,
    path: str | Path,
    *,
    frozen: bool = False,
    masks: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Writes ``model`` to the safetensors file ``path``. An existing file is replaced at the end.

    Names do not contain the prefixes that ``torch.compile`` and data parallel wrappers add.

    Args:
        frozen: also store the frozen filters. Otherwise :func:`load` needs a model that was made
            with the same frozen filters (from the same seed, or the same backbone file).
        masks: of supermasks, store what their masks keep, one bit for each weight, instead of the
            scores. The loaded model has the same output. Its scores are 1 for kept weights and 0
            for the others, so that training cannot be resumed from it.
        notes: JSON values to store beside the tensors, which :func:`read_notes` returns.

    Raises:
        TypeError: ``notes`` are no JSON values.
        ValueError: ``model`` holds no parameters or buffers, or one that is no plain tensor in
            memory (of the meta device, sparse, a subclass); ``masks`` and there are none.
        OSError: ``path`` cannot be written.
        ModuleNotFoundError: safetensors is not installed.
    """
    state = _state(model)
    if not state:
        raise ValueError(f"model ({type(model).__name__}) has nothing to save")
    for key, tensor in state.items():
        if type(tensor) is not Tensor or tensor.is_meta or tensor.layout != torch.strided:
            raise ValueError(f"{key} of the model is {_described(tensor)}; expected a plain tensor")
    layers = _partly_learned(model)
    bits = _masks_of(layers) if masks else {}
    if masks and not bits:
        raise ValueError(f"masks is True, but model ({type(model).__name__}) has no supermask")
    state |= bits
    keys = [key for name, layer in layers.items() for key in _frozen_of(name, layer)]
    fingerprints = {key: fingerprint(state[key]) for key in keys if key in state}
    if not frozen:
        state = {key: tensor for key, tensor in state.items() if key not in fingerprints}
    networks = networks_of(layers.values())
    described = {
        name: {**_configuration(layer), "seed": layer.seed, "origin": place_of(layer, networks)}
        for name, layer in layers.items()
    }
    content = Content(
        described, fingerprints, state, networks, masks=frozenset(bits), notes=notes or {}
    )
    file.write(Path(path), content)


def load(model: Model, path: str | Path) -> Model:
    """Loads a file of :func:`save` into ``model``, in place. A failed load changes nothing.

    If the file does not hold the frozen filters, the model's own are used if their SHA-256 matches.
    Otherwise they are drawn again from the seed in the file. The dtypes of file and model must
    agree. Tensors of the model on the meta device are allocated on the CPU.

    Returns:
        ``model``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such a checkpoint or is damaged; its layers, names, shapes or
            types are not the model's, or its values differ where layers of the model share them;
            or frozen filters are neither in the file, nor in the model, nor given by a seed.
    """
    path = Path(path)
    layers, state = _partly_learned(model), _state(model)
    content = _without_prefix(file.read(path), state)
    _compare_layers(content.layers, layers, path)
    _compare_tensors(content, state, path)
    _compare_shared(content, layers, path)
    found = find_frozen(content, state, layers, path)
    check_can_materialise(model)
    materialise(model)
    tensors = {**content.tensors, **found}
    model.load_state_dict({key: tensors[name] for key, name in own_names(model).items()})
    for key in content.frozen:
        if found.get(key) is not state[key]:
            name = key.rpartition(".")[0]
            layers[name].seed = content.layers[name]["seed"]
            set_origin(layers[name], origin_in(content, name, path))
    return model


def read_notes(path: str | Path) -> Mapping[str, Any]:
    """The ``notes`` that :func:`save` stored in a file; empty if there are none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such a checkpoint or is damaged.
    """
    return file.read(Path(path)).notes


def load_plain(path: str | Path) -> dict[str, Tensor]:
    """Reads a file of :func:`save` with ``frozen=True`` as the state dict of the merged model.

    Its convolutions have a full ``weight`` and ``bias``, which ``nn.Conv2d`` and any
    ``MaskedConv2d`` can load.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such a checkpoint or is damaged, or was saved without frozen
            filters.
    """
    path = Path(path)
    layers, frozen, tensors, *_ = file.read(path)
    if missing := sorted(frozen.keys() - tensors.keys()):
        raise ValueError(f"{path} lacks {missing[0]}; expected a file of save(..., frozen=True)")
    for name, layer in layers.items():
        expected = shapes(name, layer)
        biases = {key for key in expected if key.rpartition(".")[2].startswith("bias_")}
        for key in expected.keys() - tensors.keys():
            if key not in biases or biases & tensors.keys():
                raise ValueError(f"{path} lacks {key}, which its header lists")
        prefix = f"{name}." if name else ""
        stored = {key.removeprefix(prefix): tensors.pop(key) for key in expected if key in tensors}
        try:
            values = method_of(layer).plain_values(layer, stored)
        except ValueError as error:
            raise ValueError(f"{path}, header: layers.{name}.{error}") from None
        tensors |= {prefix + key: value for key, value in values.items()}
    return tensors


def _state(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: state[key] for key, name in own_names(model).items()}


def _partly_learned(model: nn.Module) -> dict[str, PartlyLearned]:
    names = own_module_names(model)
    return {names[key]: m for key, m in model.named_modules() if isinstance(m, PartlyLearned)}


def _frozen_of(name: str, layer: PartlyLearned) -> list[str]:
    return [f"{name}.{buffer}".lstrip(".") for buffer in layer.frozen_buffers()]


def _masks_of(layers: dict[str, PartlyLearned]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}".lstrip("."): mask
        for name, layer in layers.items()
        for key, mask in layer.masks().items()
    }


def _configuration(layer: PartlyLearned) -> Layer:
    return {
        "method": layer.method,
        **layer.configuration(),
        "dtype": type_name(layer.dtype),
    }


def _described(value: Any) -> str:
    if type(value) is not Tensor:
        return f"a {type(value).__name__}"
    return "on the meta device" if value.is_meta else f"of layout {value.layout}"


def _without_prefix(content: Content, state: dict[str, Tensor]) -> Content:
    """``content`` without the ``module.`` of data parallel training, which old files keep."""
    prefix = "module."
    names = content.tensors.keys() | content.frozen.keys()
    if not all(name.startswith(prefix) for name in names) or any(
        name.startswith(prefix) for name in state
    ):
        return content

    def stripped(part: dict[str, Any]) -> dict[str, Any]:
        return {name.removeprefix(prefix): value for name, value in part.items()}

    return content._replace(
        layers=stripped(content.layers),
        frozen=stripped(content.frozen),
        tensors=stripped(content.tensors),
    )


def _compare_layers(saved: dict[str, Layer], layers: dict[str, PartlyLearned], path: Path) -> None:
    if saved.keys() != layers.keys():
        raise ValueError(
            f"{path} has masked layers {sorted(saved)}; the model has {sorted(layers)}"
        )
    for name, layer in layers.items():
        later = method_of(saved[name]).later_defaults
        stored = {**later, **saved[name]}
        for key, value in {**later, **_configuration(layer)}.items():
            if stored.get(key, value) != value:
                raise ValueError(f"{path}: {name}.{key} is {stored[key]}; expected {value}")


def _compare_shared(content: Content, layers: dict[str, PartlyLearned], path: Path) -> None:
    """ValueError if layers that share a frozen weight have different ones in the file."""
    first: dict[int, str] = {}
    for name, layer in layers.items():
        for buffer, key in zip(layer.frozen_buffers(), _frozen_of(name, layer), strict=True):
            other = first.setdefault(id(getattr(layer, buffer)), key)
            if content.frozen.get(key) != content.frozen.get(other):
                raise ValueError(
                    f"{path}: {key} differs from {other}; expected equal values, as these layers "
                    "of the model share one frozen weight"
                )


def _compare_tensors(content: Content, state: dict[str, Tensor], path: Path) -> None:
    names = content.tensors.keys() | content.frozen.keys()
    if names != state.keys():
        missing, surplus = sorted(state.keys() - names), sorted(names - state.keys())
        raise ValueError(f"{path} is of another model: it lacks {missing} and also has {surplus}")
    for key, tensor in content.tensors.items():
        expected = state[key]
        if tensor.shape != expected.shape:
            raise ValueError(
                f"{path}: {key} is {list(tensor.shape)}; expected {list(expected.shape)}"
            )
        if tensor.dtype != expected.dtype:
            raise ValueError(
                f"{path}: {key} is {type_name(tensor.dtype)}; expected "
                f"{type_name(expected.dtype)}, as the model has it"
            )
