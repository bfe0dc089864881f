"""The header of a checkpoint: its schema, and its short form in the file.

The file has the values that most layers have in common once, and one string with a check for every
tensor. Files of earlier versions have neither, and one SHA-256 by name for each tensor instead.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from maskedconv.checkpoint.masks import mask_description
from maskedconv.methods import METHODS, method_of
from maskedconv.schema import (
    Misfit,
    Schema,
    checked,
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
Header = dict[str, Any]

FORMAT = "maskedconv-2"
FIRST_FORMAT = "maskedconv-1"


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


_short = record(
    {"format": one_of(FORMAT, FIRST_FORMAT), "layers": mapping_of(record())},
    {"common": record()},
)
_first_header = record({"layers": mapping_of(_layer()), "frozen": mapping_of(text)})
_scalars = mapping_of(optional(scalar))


def _network(value: Any) -> None:
    """Arguments of ``models.create``; the method is an object of its own."""
    record({}, {"method": record({"name": text})})(value)
    _scalars(value.get("method", {}))
    _scalars({name: argument for name, argument in value.items() if name != "method"})


_network_origin = record({"network": count, "layer": text})
_file_origin = record({"file": text, "sha256": text})
_hub_origin = record({"hub": text, "sha256": text})


def _source(value: Any) -> None:
    (_hub_origin if isinstance(value, dict) and "hub" in value else _file_origin)(value)


def _origin(value: Any) -> None:
    (_network_origin if isinstance(value, dict) and "network" in value else _source)(value)


_header = record(
    {
        "layers": mapping_of(_layer(dtype=text, origin=optional(_origin))),
        "networks": list_of(_network),
    },
    {
        "tensors": mapping_of(text),
        "checks": text,
        "masks": mapping_of(mask_description),
        "base": _source,
        "frozen_statistics": list_of(text),
        "notes": record(),
    },
)


def written(header: Header) -> str:
    """The header as JSON, in its short form.

    Raises:
        TypeError, ValueError: the notes are no JSON values.
    """
    common = _common(header["layers"])
    layers = {name: _without(layer, common) for name, layer in header["layers"].items()}
    short = {"format": FORMAT, **({"common": common} if common else {}), **header, "layers": layers}
    return json.dumps(short, separators=(",", ":"), allow_nan=False)


def read_header(content: str, place: str) -> Header:
    """The header of a file in full, checked.

    Args:
        place: names the file in errors.

    Raises:
        SchemaError: it is no valid header.
    """
    header = read_json(content, _short, place)
    common = header.pop("common", {})
    header["layers"] = {name: {**common, **one} for name, one in header["layers"].items()}
    checked(header, _first_header, place)
    if header["format"] == FIRST_FORMAT:
        return {key: header[key] for key in ("format", "layers", "frozen")}
    checked(header, _header, place)
    return header


def _common(layers: Mapping[str, Layer]) -> Layer:
    """For each field that all layers have, the most frequent value, if it is frequent."""
    fields = set.intersection(*map(set, layers.values())) if layers else set()
    found = {}
    for field in sorted(fields):
        values = Counter(json.dumps(layer[field]) for layer in layers.values())
        value, number = values.most_common(1)[0]
        if number > 1:
            found[field] = json.loads(value)
    return found


def _without(layer: Layer, common: Layer) -> Layer:
    return {
        key: value
        for key, value in layer.items()
        if key not in common or not _same(value, common[key])
    }


def _same(one: Any, other: Any) -> bool:
    """As JSON: 1, 1.0 and true differ."""
    return json.dumps(one) == json.dumps(other)
