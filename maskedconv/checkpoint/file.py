"""The checkpoint file: tensors in safetensors, and a header that describes them.

The header is JSON in safetensors' metadata; ``docs/checkpoint-format.md`` describes it. It holds a
check of every tensor, and the SHA-256 of the frozen values that the file omits. The hash of the
header itself stands beside it. Files of format 1 hold only the hashes of the frozen filters, so
only those are checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from maskedconv.checkpoint.digests import CHECK_LENGTH, check_of, fingerprint, plain, type_name
from maskedconv.checkpoint.header import Header, Layer, read_header, written
from maskedconv.checkpoint.masks import describe_mask, pack, unpacked
from maskedconv.io import replace_file
from maskedconv.methods import method_of

_NAME, _DIGEST = "maskedconv", "sha256"


class Content(NamedTuple):
    """The content of a file.

    Attributes:
        layers: configuration of each partly learned layer, by its name in the model. "origin", if
            it is not null, is an index of ``networks`` and a name in that network, or a source as
            ``base``.
        frozen: SHA-256 of all frozen values, by their names: frozen filters and their biases, and
            parameters that do not require a gradient.
        tensors: what is stored, by its name; with or without the frozen values.
        networks: arguments of ``models.create``.
        digest: SHA-256 of the header, which has those of all tensors; empty in format 1.
        masks: names of tensors of zeros and ones, which the file stores as bits.
        base: source of frozen values of unknown origin: name and SHA-256 of a file or a hub's
            model; None if it is unknown.
        notes: JSON values of whoever wrote the file.
        frozen_statistics: names of the norms that keep their running statistics.
    """

    layers: dict[str, Layer]
    frozen: dict[str, str]
    tensors: dict[str, Tensor]
    networks: list[dict[str, Any]]
    digest: str = ""
    masks: frozenset[str] = frozenset()
    base: dict[str, str] | None = None
    notes: Mapping[str, Any] = MappingProxyType({})
    frozen_statistics: tuple[str, ...] = ()


def write(path: Path, content: Content) -> None:
    """Writes the file, whole or not at all.

    Raises:
        OSError: ``path`` cannot be written.
        TypeError, ValueError: the notes are no JSON values.
    """
    from safetensors.torch import save as serialize

    # A copy for every tensor: safetensors refuses memory that two names share.
    tensors = {key: plain(tensor).clone() for key, tensor in content.tensors.items()}
    masks = {key: describe_mask(tensors[key]) for key in sorted(content.masks)}
    tensors |= {key: pack(tensors[key]) for key in masks}
    header = written(
        {
            "layers": content.layers,
            "frozen": content.frozen,
            "networks": content.networks,
            "checks": "".join(_check(key, tensors[key]) for key in sorted(tensors)),
            **({"masks": masks} if masks else {}),
            **({"base": content.base} if content.base else {}),
            **({"notes": dict(content.notes)} if content.notes else {}),
            **({"frozen_statistics": norms} if (norms := list(content.frozen_statistics)) else {}),
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
    text = metadata.get(_NAME)
    if text is None:
        raise ValueError(f"{path} was not written by maskedconv.save (expected its header in it)")
    header = read_header(text, f"{path}, header")
    if "networks" in header:
        if metadata.get(_DIGEST) != hashlib.sha256(text.encode()).hexdigest():
            raise ValueError(f"{path}, header is damaged (its SHA-256 is not the one beside it)")
    else:
        tensors = _strip_wrapper(header, tensors)
    _check_tensors(header, tensors, path)
    masks = header.get("masks", {})
    tensors |= unpacked(masks, tensors, path)
    content = Content(
        header["layers"], header["frozen"], tensors, header.get("networks", []),
        metadata.get(_DIGEST, ""), frozenset(masks), header.get("base"), header.get("notes", {}),
        tuple(header.get("frozen_statistics", ())),
    )  # fmt: skip
    _check_layers(content, path)
    return content


def shapes(name: str, layer: Layer) -> dict[str, list[int]]:
    """Shapes of what the layer ``name`` may store, by its name in the model."""
    stored = method_of(layer).stored_shapes(layer)
    return {f"{name}.{part}".lstrip("."): shape for part, shape in stored.items()}


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    import safetensors

    if not path.is_file():
        instead = "; load_sharded() and load_run() read folders" if path.is_dir() else ""
        raise FileNotFoundError(
            f"path is {str(path)!r}; expected a file that save() wrote{instead}"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None


def _strip_wrapper(header: Header, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes the name that torch.compile puts before a network's own, which old files keep."""

    def stripped(entries: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("_orig_mod.", ""): value for name, value in entries.items()}

    header |= {key: stripped(header[key]) for key in ("layers", "frozen")}
    return stripped(tensors)


def _check(key: str, tensor: Tensor) -> str:
    return check_of(key, fingerprint(tensor))


def _check_tensors(header: Header, tensors: dict[str, Tensor], path: Path) -> None:
    """Whether the file has the tensors of its header, undamaged."""
    found = {key: fingerprint(tensor) for key, tensor in tensors.items()}
    expected = header.get("tensors", {key: header["frozen"].get(key) for key in found})
    if expected.keys() != found.keys():
        missing, surplus = sorted(expected.keys() - found), sorted(found.keys() - expected)
        raise ValueError(f"{path} is damaged: it lacks {missing} and has {surplus} besides")
    wrong = _wrong_checks(header["checks"], found, path) if "checks" in header else []
    wrong += [key for key, digest in expected.items() if digest not in (None, found[key])]
    wrong += [key for key, digest in found.items() if header["frozen"].get(key, digest) != digest]
    if wrong:
        raise ValueError(
            f"{path}: {min(wrong)} is damaged (its SHA-256 is not the one in the header)"
        )


def _wrong_checks(checks: str, found: Mapping[str, str], path: Path) -> list[str]:
    """Names of tensors that differ from their check; ``checks`` is in the order of the names."""
    if len(checks) != CHECK_LENGTH * len(found):
        number = len(checks) // CHECK_LENGTH
        raise ValueError(
            f"{path} is damaged: it has {len(found)} tensors; its header has checks of {number}"
        )
    starts = range(0, len(checks), CHECK_LENGTH)
    each = (checks[start : start + CHECK_LENGTH] for start in starts)
    pairs = zip(sorted(found), each, strict=True)
    return [key for key, check in pairs if check_of(key, found[key]) != check]


def _check_layers(content: Content, path: Path) -> None:
    """Whether what is there of each layer has the shape and type that its configuration says."""
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
            named = layer.get(key.rpartition(".")[2])
            if named is not None and tensor.tolist() != named:
                raise ValueError(f"{path}: {key} is not the {named} of the header")
    if unknown := _unknown_frozen(content):
        raise ValueError(f"{path}, header: frozen.{min(unknown)} belongs to none of the layers")


def _unknown_frozen(content: Content) -> list[str]:
    """Names of frozen values of a layer that such a layer does not have."""
    known = {key for name, layer in content.layers.items() for key in shapes(name, layer)}
    return [
        key
        for key in content.frozen
        if key.rpartition(".")[0] in content.layers and key not in known
    ]
