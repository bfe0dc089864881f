"""The checkpoint file format: tensors in safetensors, and a header that describes them.

The header is JSON in safetensors' metadata. It holds the SHA-256 of every tensor, including the
frozen filters that the file omits. The hash of the header itself stands beside it. Files of format
1 hold only the hashes of the frozen filters, so only those are checked.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskedconv.checkpoint.masks import describe_mask, mask_description, pack, unpacked
from maskedconv.io import replace_file
from maskedconv.methods import METHODS, Method
from maskedconv.schema import (
    Misfit,
    Schema,
    count,
    list_of,
    mapping_of,
    one_of,
    optional,
    read_json,
    record,
    scalar,
    seed,
    text,
)

Layer = dict[str, Any]

_FORMAT = "maskedconv-2"
_FIRST_FORMAT = "maskedconv-1"
_NAME, _DIGEST = "maskedconv", "sha256"


def method_of(layer: Layer) -> type[Method]:
    """The method of a layer; files of earlier versions do not name theirs."""
    return METHODS[layer.get("method", "slice")]


def _known_method(name: Any) -> None:
    # Looked up at each call, as a program may register methods of its own.
    one_of(*METHODS)(name)


def _layer(**others: Schema) -> Schema:
    """The configuration of a layer: what every method has, and the fields of its own."""
    common = record({"seed": optional(seed), **others}, {"method": _known_method})

    def check(value: Any) -> None:
        common(value)
        record(method_of(value).schema, method_of(value).later_schema)(value)
        if mistake := method_of(value).mistake(value):
            raise Misfit(mistake)

    return check


_first_header = record(
    {
        "format": one_of(_FORMAT, _FIRST_FORMAT),
        "layers": mapping_of(_layer()),
        "frozen": mapping_of(text),
    }
)
_scalars = mapping_of(optional(scalar))


def _network(value: Any) -> None:
    """Arguments of ``models.create``; the method is an object of its own."""
    record({}, {"method": record({"name": text})})(value)
    _scalars(value.get("method", {}))
    _scalars({name: argument for name, argument in value.items() if name != "method"})


_network_origin = record({"network": count, "layer": text})
_file_origin = record({"file": text, "sha256": text})


def _origin(value: Any) -> None:
    (_file_origin if isinstance(value, dict) and "file" in value else _network_origin)(value)


_header = record(
    {
        "layers": mapping_of(_layer(dtype=text, origin=optional(_origin))),
        "tensors": mapping_of(text),
        "networks": list_of(_network),
    },
    {"masks": mapping_of(mask_description), "notes": record()},
)


class Content(NamedTuple):
    """The content of a file.

    Attributes:
        layers: configuration of each partly learned layer, by its name in the model. "origin", if
            it is not null, is an index of ``networks`` and a name in that network, or the name and
            the SHA-256 of a file.
        frozen: SHA-256 of all frozen filters and their biases, by their names.
        tensors: what is stored, by its name; with or without the frozen filters.
        networks: arguments of ``models.create``.
        digest: SHA-256 of the header, which has those of all tensors; empty in format 1.
        masks: names of tensors of zeros and ones, which the file stores as bits.
        notes: JSON values of whoever wrote the file.
    """

    layers: dict[str, Layer]
    frozen: dict[str, str]
    tensors: dict[str, Tensor]
    networks: list[dict[str, Any]]
    digest: str = ""
    masks: frozenset[str] = frozenset()
    notes: Mapping[str, Any] = MappingProxyType({})


def write(path: Path, content: Content) -> None:
    """Writes the file, whole or not at all.

    Raises:
        OSError: ``path`` cannot be written.
        ModuleNotFoundError: safetensors is not installed.
    """
    serialize = _safetensors("safetensors.torch").save
    # A copy for every tensor: safetensors refuses memory that two names share.
    tensors = {key: plain(tensor).clone() for key, tensor in content.tensors.items()}
    masks = {key: describe_mask(tensors[key]) for key in sorted(content.masks)}
    tensors |= {key: pack(tensors[key]) for key in masks}
    header = json.dumps(
        {
            "format": _FORMAT,
            "layers": content.layers,
            "frozen": content.frozen,
            "networks": content.networks,
            "tensors": {key: fingerprint(tensor) for key, tensor in tensors.items()},
            **({"masks": masks} if masks else {}),
            **({"notes": dict(content.notes)} if content.notes else {}),
        }
    )
    metadata = {_NAME: header, _DIGEST: hashlib.sha256(header.encode()).hexdigest()}
    replace_file(path, serialize(tensors, metadata=metadata))


def read(path: Path) -> Content:
    """Reads and checks the file.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: it is not such a file, is damaged, or contradicts itself; says where.
    """
    metadata, tensors = _read_safetensors(path)
    written = metadata.get(_NAME)
    if written is None:
        raise ValueError(f"{path} was not written by maskedconv.save (expected its header in it)")
    place = f"{path}, header"
    header = read_json(written, _first_header, place)
    if header["format"] == _FORMAT:
        if metadata.get(_DIGEST) != hashlib.sha256(written.encode()).hexdigest():
            raise ValueError(f"{place} is damaged (its SHA-256 is not the one beside it)")
        read_json(written, _header, place)
    else:
        header = {key: header[key] for key in ("layers", "frozen")}
        tensors = _strip_wrapper(header, tensors)
    _check_digests(header, tensors, path)
    masks = header.get("masks", {})
    tensors |= unpacked(masks, tensors, path)
    networks, digest = header.get("networks", []), metadata.get(_DIGEST, "")
    layers, frozen = header["layers"], header["frozen"]
    notes = header.get("notes", {})
    content = Content(layers, frozen, tensors, networks, digest, frozenset(masks), notes)
    _check_layers(content, path)
    return content


def shapes(name: str, layer: Layer) -> dict[str, list[int]]:
    """Shapes of what the layer ``name`` may store, by its name in the model."""
    stored = method_of(layer).stored_shapes(layer)
    return {f"{name}.{part}".lstrip("."): shape for part, shape in stored.items()}


def fingerprint(tensor: Tensor) -> str:
    """SHA-256 of type, shape and values, whatever the memory format and device."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    # Flat: a contiguous tensor with a dimension of size 1 may have any stride there.
    digest.update(memoryview(plain(tensor).flatten().view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()


def plain(tensor: Tensor) -> Tensor:
    """``tensor`` as contiguous values in the CPU's memory, without lazy signs."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def type_name(dtype: torch.dtype) -> str:
    """``float32`` and so on."""
    return str(dtype).removeprefix("torch.")


def _safetensors(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "checkpoints need safetensors: pip install 'maskedconv[reproduce]'", name=error.name
        ) from None


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    safetensors = _safetensors("safetensors")
    if not path.is_file():
        raise FileNotFoundError(f"path is {str(path)!r}; expected a file that save() wrote")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None


def _strip_wrapper(header: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes the name that torch.compile puts before a network's own, which old files keep."""

    def stripped(entries: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("_orig_mod.", ""): value for name, value in entries.items()}

    header |= {key: stripped(header[key]) for key in ("layers", "frozen")}
    return stripped(tensors)


def _check_digests(header: dict[str, Any], tensors: dict[str, Tensor], path: Path) -> None:
    known = header.get("tensors", tensors)
    if known.keys() != tensors.keys():
        missing, surplus = sorted(known.keys() - tensors), sorted(tensors.keys() - known)
        raise ValueError(f"{path} is damaged: it lacks {missing} and has {surplus} besides")
    for key, tensor in tensors.items():
        expected = {header[of][key] for of in ("tensors", "frozen") if key in header.get(of, ())}
        if expected and expected != {fingerprint(tensor)}:
            raise ValueError(f"{path}: {key} is damaged (its SHA-256 is not the one in the header)")


def _check_layers(content: Content, path: Path) -> None:
    """Whether what is there of each layer has the shape and type that its configuration says."""
    unknown = dict(content.frozen)
    for name, layer in content.layers.items():
        network = (layer.get("origin") or {}).get("network", -1)
        if network >= len(content.networks):
            place = f"{path}, header: layers.{name}.origin.network"
            raise ValueError(f"{place} is {network}; there is no such")
        expected = shapes(name, layer)
        there = {key: content.tensors[key] for key in expected if key in content.tensors}
        types = {key: type_name(tensor.dtype) for key, tensor in there.items()}
        own_type = layer.get("dtype") or next(iter(types.values()), None)
        for key, tensor in there.items():
            if list(tensor.shape) != expected[key]:
                raise ValueError(f"{path}: {key} is {list(tensor.shape)}; expected {expected[key]}")
            integer = key.rpartition(".")[2] in method_of(layer).integers
            if types[key] != (expected_type := "int64" if integer else own_type):
                raise ValueError(f"{path}: {key} is {types[key]}; expected {expected_type}")
        for key in expected:
            unknown.pop(key, None)
    if unknown:
        raise ValueError(f"{path}, header: frozen.{min(unknown)} belongs to none of the layers")
