"""Checkpoints that grow with what is learned: frozen filters are stored as a fingerprint.

One safetensors file holds the learned parameters, every other parameter and buffer (BatchNorm
statistics), the configuration of the masked layers, and of their frozen filters the seed and a
SHA-256. Random generators promise nothing across releases, so what a seed gives is checked.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from maskedconv.nn import MaskedConv2d

Model = TypeVar("Model", bound=nn.Module)

_FORMAT = "maskedconv-1"


def save(model: nn.Module, path: str | Path, *, frozen: bool = False) -> None:
    """Writes ``model`` to ``path``, a safetensors file; an existing file is replaced at the end.

    Args:
        frozen: store the frozen filters whole, too. Without, :func:`load` needs a model that was
            made with the same frozen filters (from the same seed, or the same backbone file).

    Raises:
        ValueError: ``model`` holds no parameters or buffers.
        OSError: ``path`` cannot be written.
        ModuleNotFoundError: safetensors is not installed.
    """
    serialize = _safetensors("safetensors.torch").save
    path = Path(path)
    state = model.state_dict()
    if not state:
        raise ValueError(f"model ({type(model).__name__}) has nothing to save")
    layers = dict(_masked_layers(model))
    fingerprints = {key: _fingerprint(state[key]) for key in _frozen_keys(layers)}
    if not frozen:
        state = {key: tensor for key, tensor in state.items() if key not in fingerprints}
    header = {
        "format": _FORMAT,
        "layers": {name: _configuration(layer) for name, layer in layers.items()},
        "frozen": fingerprints,
    }
    # A copy for every tensor: safetensors refuses memory that two names share.
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in state.items()}
    content = serialize(tensors, metadata={"maskedconv": json.dumps(header)})
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(model: Model, path: str | Path) -> Model:
    """Loads what :func:`save` wrote into ``model``, in place; nothing changes when it cannot.

    Frozen filters that the file does not hold must be the model's own (compared by SHA-256), or are
    drawn again from the layer's seed that the file names.

    Returns:
        ``model``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such a checkpoint; its layers are not the model's; or frozen
            filters are neither in the file, nor in the model, nor given by a seed.
    """
    header, tensors = _read(Path(path))
    layers = dict(_masked_layers(model))
    _compare_layers(header["layers"], layers, path)
    state = model.state_dict()
    for key, expected in header["frozen"].items():
        if key not in tensors:
            tensors[key] = _find_frozen(key, expected, state[key], layers, header["layers"], path)
    if tensors.keys() != state.keys():
        missing, surplus = sorted(state.keys() - tensors), sorted(tensors.keys() - state.keys())
        raise ValueError(f"{path} is of another model: it lacks {missing} and also has {surplus}")
    for key, tensor in tensors.items():
        if tensor.shape != state[key].shape:
            raise ValueError(
                f"{path}: {key} is {list(tensor.shape)}; expected {list(state[key].shape)}"
            )
    model.load_state_dict(tensors)
    return model


def load_plain(path: str | Path) -> dict[str, Tensor]:
    """What :func:`save` wrote with ``frozen=True``, as the state dict of the merged model.

    Its convolutions have a ``weight`` and ``bias``, which ``nn.Conv2d`` and ``MaskedConv2d`` load
    whatever of them they learn.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not such a checkpoint, or was saved without frozen filters.
    """
    header, tensors = _read(Path(path))
    if missing := sorted(header["frozen"].keys() - tensors.keys()):
        raise ValueError(f"{path} lacks {missing[0]}; expected a file of save(..., frozen=True)")
    for name, layer in header["layers"].items():
        shape, dim = layer["weight_shape"], layer["slice_dim"]
        for plain, own, size, along in (
            ("weight", "", shape[dim], dim),
            ("bias", "bias_", shape[0], 0),
        ):
            keys = [f"{name}.{own}{part}".lstrip(".") for part in ("learned", "frozen")]
            parts = [tensors.pop(key) for key in keys if key in tensors]
            if parts:
                tensors[f"{name}.{plain}".lstrip(".")] = _padded(
                    torch.cat(parts, along), size, along
                )
    return tensors


def _padded(tensor: Tensor, size: int, dim: int) -> Tensor:
    """``tensor`` with zeros behind it, ``size`` long along ``dim``."""
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)


def _safetensors(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "checkpoints need safetensors: pip install 'maskedconv[reproduce]'", name=error.name
        ) from None


def _masked_layers(model: nn.Module) -> list[tuple[str, MaskedConv2d]]:
    return [(name, m) for name, m in model.named_modules() if isinstance(m, MaskedConv2d)]


def _frozen_keys(layers: dict[str, MaskedConv2d]) -> list[str]:
    return [
        f"{name}.{buffer}".lstrip(".")
        for name, layer in layers.items()
        for buffer in ("frozen", "bias_frozen")
        if getattr(layer, buffer) is not None
    ]


def _configuration(layer: MaskedConv2d) -> dict[str, Any]:
    return {
        "num_learned": layer.num_learned,
        "slice_dim": layer.slice_dim,
        "frozen_mode": layer.frozen_mode,
        "weight_shape": list(layer.weight_shape),
        "seed": layer.seed,
    }


def _fingerprint(tensor: Tensor) -> str:
    """SHA-256 of type, shape and values, whatever the memory format and device."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    # Flat: a contiguous tensor with a dimension of size 1 may have any stride there.
    values = tensor.detach().cpu().contiguous().flatten()
    digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    safetensors = _safetensors("safetensors")
    if not path.is_file():
        raise FileNotFoundError(f"path is {str(path)!r}; expected a file that save() wrote")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("maskedconv", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    if header.get("format") != _FORMAT:
        raise ValueError(f"{path} was not written by maskedconv.save (expected format {_FORMAT})")
    return header, tensors


def _compare_layers(saved: dict[str, Any], layers: dict[str, MaskedConv2d], path: Any) -> None:
    if saved.keys() != layers.keys():
        raise ValueError(
            f"{path} has masked layers {sorted(saved)}; the model has {sorted(layers)}"
        )
    for name, layer in layers.items():
        for key, value in _configuration(layer).items():
            if key != "seed" and saved[name][key] != value:
                raise ValueError(f"{path}: {name}.{key} is {saved[name][key]}; expected {value}")


def _find_frozen(
    key: str,
    expected: str,
    own: Tensor,
    layers: dict[str, MaskedConv2d],
    saved: dict[str, Any],
    path: Any,
) -> Tensor:
    """Frozen filters with the fingerprint ``expected``: the model's, or drawn from the seed."""
    if _fingerprint(own) == expected:
        return own
    name, _, buffer = key.rpartition(".")
    layer, seed = layers[name], saved[name]["seed"]
    if seed is not None:
        drawn = getattr(layer.drawn_from(seed), buffer)
        if _fingerprint(drawn) == expected:
            return drawn
    raise ValueError(
        f"{key} of the model is not what {path} was saved with (SHA-256), and the file does not "
        f"hold it; expected a model made with the same seed, or a file of save(..., frozen=True)"
    )
