"""Checkpoints of sharded models by torch.distributed.checkpoint: each process writes its shards.

A folder holds the shards of the learned parameters and of all other values that are not frozen
(statistics of norms included), and ``maskedconv.json`` with the masked layers and the SHA-256 of
each frozen tensor. Frozen values are those of the model that loads. The number of processes may be
another one then, and the model may be wrapped otherwise or not at all.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from maskedconv.checkpoint.digests import fingerprint, type_name
from maskedconv.checkpoint.masks import check_scores_used
from maskedconv.checkpoint.sharded_optimizer import (
    PREFIX,
    expected_values,
    optimizer_values,
    packed_values,
    settings_of,
)
from maskedconv.checkpoint.whole_model import (
    check_can_write,
    frozen_buffer_names,
    names_left_out,
    own_names,
    partly_learned,
    under_all_names,
)
from maskedconv.io import replace_file
from maskedconv.schema import SchemaError, list_of, mapping_of, one_of, read_json, record, text

Model = TypeVar("Model", bound=nn.Module)

_FORMAT = "maskedconv-sharded-1"
_HEADER = "maskedconv.json"
_schema = record(
    {"format": one_of(_FORMAT), "layers": mapping_of(text), "frozen": mapping_of(text)},
    {"settings": list_of(text)},
)


def save_sharded(model: nn.Module, folder: str | Path, optimizer: Optimizer | None = None) -> None:
    """Writes ``model``; each process may hold its shards alone, as with ``fully_shard``.

    All processes of the default group call it with the same folder, which they share; without a
    group it writes the whole model. A folder whose writing was cut off is refused when it is read.

    Args:
        optimizer: of the parameters of ``model``; its state and settings are written, too.
            Parameters may have no state, as before the first step.

    Raises:
        ValueError: ``folder`` exists and is not empty, a value is on the meta device, a layer uses
            the mask of a task (``Supermasks``), or the optimizer has parameters that are not of
            ``model`` or state that is of none (as that of ``YellowFin``).
        OSError: ``folder`` cannot be written.
    """
    from torch.distributed.checkpoint.state_dict_saver import save

    folder = Path(folder)
    check_scores_used(model, "release() of the tasks first, or save(..., masks=True)")
    learned, frozen = _parts(model)
    _check_in_memory({**learned, **frozen})
    of_optimizer = optimizer_values(model, optimizer)
    # Each process looks before one of them writes.
    taken = folder.exists() and any(folder.iterdir())
    _wait()
    if taken:
        raise ValueError(f"folder is {folder}, which is not empty; expected a new one")
    header: dict[str, Any] = {
        "format": _FORMAT,
        "layers": _layers(model),
        "frozen": _fingerprints(frozen),
    }
    if optimizer is not None:
        header["settings"] = settings_of(optimizer)
    if _rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / _HEADER, json.dumps(header).encode())
    with _quiet_alone():
        save({**learned, **of_optimizer}, checkpoint_id=folder)


def load_sharded(model: Model, folder: str | Path, optimizer: Optimizer | None = None) -> Model:
    """Loads a folder of :func:`save_sharded` in place; called by all processes of the group.

    A failed load changes nothing in this process.

    Args:
        optimizer: of the parameters of ``model``; its state and settings are loaded, too.
            Parameters that had no state when saved have none afterwards. None ignores the
            optimizer in the folder.

    Returns:
        ``model``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder is no such checkpoint or is incomplete; its layers, names, shapes,
            types or frozen values are not those of the model; the folder holds no optimizer, or
            one of another kind; a value is on the meta device; or a layer of the model uses a held
            mask instead of its scores.
    """
    folder = Path(folder)
    check_scores_used(model, "release() of the tasks first")
    learned, frozen = _parts(model)
    _check_in_memory({**learned, **frozen})
    check_can_write(learned, folder)
    header = _under_all_names(_read_header(folder), model)
    _compare("layer", header["layers"], _layers(model), folder)
    _compare("frozen values", header["frozen"], _fingerprints(frozen), folder)
    entries = _entries(folder)
    forms = {key: _form(value) for key, value in learned.items()}
    stored = {key: form for key, form in _stored(entries).items() if key not in frozen}
    _compare("value", stored, forms, folder)
    settings = header.get("settings")
    found = {
        **{key: torch.empty_like(value) for key, value in learned.items()},
        **expected_values(model, optimizer, entries, settings, folder),
    }
    _read(found, folder)
    of_optimizer = packed_values(model, optimizer, found, folder)
    state = {**found, **frozen}
    model.load_state_dict({key: state[name] for key, name in own_names(model).items()})
    if optimizer is not None:
        optimizer.load_state_dict(of_optimizer)
    return model


def _parts(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The stored and the frozen tensors, by the network's own names."""
    keys = frozen_buffer_names(partly_learned(model))
    values = model.state_dict()
    state = {name: values[key].detach() for key, name in own_names(model).items()}
    learned = {key: tensor for key, tensor in state.items() if key not in keys}
    return learned, {key: tensor for key, tensor in state.items() if key in keys}


def _layers(model: nn.Module) -> dict[str, str]:
    """The configuration of each partly learned layer, as JSON."""
    return {
        name: json.dumps({"method": layer.method, **layer.configuration()}, sort_keys=True)
        for name, layer in partly_learned(model).items()
    }


def _under_all_names(header: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """``header`` with each layer under all names that it has in ``model``."""
    layers = header["layers"]
    left_out = names_left_out(model, layers)
    return header | {
        "layers": layers | {name: layers[one] for name, one in left_out.items()},
        "frozen": under_all_names(header["frozen"], left_out),
    }


def _check_in_memory(values: dict[str, Tensor]) -> None:
    for key, tensor in values.items():
        if tensor.is_meta:
            raise ValueError(f"{key} of the model is on the meta device; expected it in memory")


def _fingerprints(frozen: dict[str, Tensor]) -> dict[str, str]:
    return {key: fingerprint(tensor) for key, tensor in frozen.items()}


def _form(tensor: Tensor) -> str:
    return f"{type_name(tensor.dtype)} {list(tensor.shape)}"


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        return read_json((folder / _HEADER).read_bytes(), _schema, folder / _HEADER)
    except SchemaError as error:
        raise ValueError(str(error)) from error


def _entries(folder: Path) -> dict[str, Any]:
    """The metadata of each value in the folder."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    try:
        return dict(FileSystemReader(folder).read_metadata().state_dict_metadata)
    # It is a pickle, which fails in many ways if it is damaged.
    except Exception as error:
        raise ValueError(f"{folder} is incomplete or damaged: {error}") from error


def _stored(entries: dict[str, Any]) -> dict[str, str]:
    """Type and shape of each tensor of the model in the folder."""
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    return {
        key: f"{type_name(entry.properties.dtype)} {list(entry.size)}"
        for key, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata) and not key.startswith(PREFIX)
    }


def _read(found: dict[str, Any], folder: Path) -> None:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    try:
        with _quiet_alone():
            load(found, checkpoint_id=folder)
    # PyTorch's exception is no Exception.
    except CheckpointException as error:
        raise ValueError(f"{folder} is incomplete or damaged: {error}") from error


def _compare(what: str, stored: dict[str, str], own: dict[str, str], folder: Path) -> None:
    for key in sorted(stored.keys() | own.keys()):
        if stored.get(key) != own.get(key):
            raise ValueError(
                f"{folder}: the {what} of {key!r} is {stored.get(key, 'missing')} in the folder; "
                f"the model's is {own.get(key, 'missing')}"
            )


@contextmanager
def _quiet_alone() -> Iterator[None]:
    """Context without PyTorch's warning that there is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable")
        yield


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()
