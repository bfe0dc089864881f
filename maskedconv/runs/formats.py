"""Reads and writes ``plan.json`` and the lines of ``results.jsonl``. Does not import torch."""

from __future__ import annotations

import json
import math
from typing import Any, cast

from maskedconv.data import available
from maskedconv.runs.config import RunConfig
from maskedconv.runs.parts import Options
from maskedconv.runs.row import EpochRow, FirstLayer, Row
from maskedconv.schema import (
    Misfit,
    Schema,
    count,
    fields_of,
    flag,
    list_of,
    mapping_of,
    number,
    one_of,
    read_json,
    record,
    scalar,
    schema_of,
    text,
)

SCHEMA = 1


def read_row(line: bytes, place: str) -> Row:
    """The row in a line of ``results.jsonl``.

    Raises:
        SchemaError: the line is not a valid row; names ``place`` and the fault.
    """
    return cast(Row, read_json(line, row, place))


def write_row(row: Row) -> bytes:
    """The line of a row; numbers that are not finite become null."""
    return json.dumps(_finite({"schema": SCHEMA, **row}), allow_nan=False).encode()


def _finite(value: Any) -> Any:
    """``value`` with None for NaN and infinities, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def run(value: Any) -> None:
    """A ``config`` and its hash ``key``; they must match."""
    _run(value)
    try:
        key = RunConfig.from_json(value["config"]).key
    except (TypeError, ValueError) as error:
        raise Misfit(f"is not a valid run configuration: {error}", "config") from None
    if value["key"] != key:
        raise Misfit(f"is {value['key']!r:.40}; expected {key!r}, the hash of config", "key")


def row(value: Any) -> None:
    """A line of results: of a finished run, or of a failed run with its error."""
    _row(value)
    run(value)
    (_done if value["status"] == "done" else _failed)(value)
    # Before --amp existed, runs on CUDA were in bfloat16 under the key of float32.
    if str(value.get("device")).startswith("cuda") and "amp" not in value["config"]:
        raise Misfit("is missing: a row from CUDA without its precision", "config.amp")


def _option(value: Any) -> None:
    list_of(scalar, 2)(value)
    text(value[0])


def _square(value: Any) -> None:
    list_of(list_of(count, len(value)) if isinstance(value, list) else count)(value)


def _first_layer(value: Any) -> None:
    _filters(value)
    if math.prod(value["shape"]) != len(value["values"]) or value["learned"] > value["shape"][0]:
        raise Misfit(
            f"has {len(value['values'])} values, {value['learned']} filters of them learned; "
            f"expected a bank of shape {value['shape']}"
        )


# RunConfig checks the values of its fields; these are their types.
config = record(
    {"dataset": one_of(*available())}, fields_of(RunConfig, {Options: list_of(_option)})
)
_run = record({"key": text, "config": config}, {"same_as": text})
_filters = record({**fields_of(FirstLayer, {}), "shape": list_of(count, 4)})
_stricter: dict[Any, Schema] = {
    FirstLayer: _first_layer,
    list[list[int]]: _square,
    dict[str, Any]: record(),
}
_row = record(
    {"schema": one_of(SCHEMA), "status": one_of("done", "failed")}, fields_of(Row, _stricter)
)
_done = record(
    {
        **dict.fromkeys(("best_top1", "last_top1"), number),
        **dict.fromkeys(("learned_parameters", "total_parameters"), count),
        "history": schema_of(list[EpochRow], {}),
    }
)
_failed = record({"error": text})
_experiment = record({"runs": list_of(run)}, {"title": text, "command": text})
plan: Schema = record(
    {
        "schema": one_of(SCHEMA),
        "preset": text,
        "dataset": text,
        "experiments": mapping_of(_experiment),
    },
    {
        **dict.fromkeys(("data_note", "command", "created", "amp"), text),
        "data_notes": mapping_of(text),
        "compile": flag,
    },
)
