"""The schemas of ``plan.json`` and of the lines of ``results.jsonl``. Does not import torch."""

from __future__ import annotations

import math
from typing import Any

from maskedconv.data import available
from maskedconv.runs.config import RunConfig
from maskedconv.schema import (
    Misfit,
    Schema,
    count,
    flag,
    list_of,
    mapping_of,
    number,
    one_of,
    optional,
    record,
    scalar,
    text,
)

SCHEMA = 1


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


def _confusion(value: Any) -> None:
    list_of(list_of(count, len(value)) if isinstance(value, list) else count)(value)


def _first_layer(value: Any) -> None:
    _filters(value)
    if math.prod(value["shape"]) != len(value["values"]) or value["learned"] > value["shape"][0]:
        raise Misfit(
            f"has {len(value['values'])} values, {value['learned']} filters of them learned; "
            f"expected a bank of shape {value['shape']}"
        )


# Types of the fields that RunConfig does not check itself.
config = record(
    {"dataset": one_of(*available())},
    {
        "model": text,
        **dict.fromkeys(("learned", "lr", "momentum", "weight_decay", "gamma", "dropout"), number),
        **dict.fromkeys(("epochs", "batch_size", "seed", "members", "slice_dim", "warmup"), count),
        "processes": count,
        **dict.fromkeys(("bn_learned", "nesterov", "keep", "compile"), flag),
        **dict.fromkeys(
            ("frozen", "trained", "init", "schedule", "optimizer", "start", "amp", "method"), text
        ),
        "milestones": list_of(count),
        **dict.fromkeys(("subset", "test_subset"), optional(count)),
        **dict.fromkeys(("options", "method_options"), list_of(_option)),
    },
)
_run = record({"key": text, "config": config}, {"same_as": text})
_numbers = ("train_loss", "train_top1", "test_loss", "seconds", "lr")
# None if a loss was not finite.
_history = list_of(
    record(
        {"epoch": count, "test_top1": optional(number)}, dict.fromkeys(_numbers, optional(number))
    )
)
_part = optional(record({"count": count, "mean_abs": number, "variance": number}))
_filters = record({"shape": list_of(count, 4), "learned": count, "values": list_of(number)})
_norms_part = record({"counts": list_of(count), "small": count})
_norms = record({"low": number, "high": number, "before": _norms_part, "after": _norms_part})
_MASK = ("size", "kept", "kept_globally")
_parameters = dict.fromkeys(("learned_parameters", "total_parameters"), count)
_row: Schema = record(
    {"schema": one_of(SCHEMA), "key": text, "status": one_of("done", "failed"), "config": record()},
    {
        **dict.fromkeys(
            ("started", "device", "data_note", "data_digest", "error", "error_type"), optional(text)
        ),
        **dict.fromkeys(("last_top1", "best_top1", "ensemble_top1"), optional(number)),
        **dict.fromkeys(("best_epoch", "peak_memory_bytes"), optional(count)),
        **_parameters,
        "seconds": optional(number),
        "spans": list_of(record({"started": text, "seconds": number})),
        "history": _history,
        "versions": mapping_of(text),
        "weights": text,
        "layers": list_of(record({"name": text}, {"learned": _part, "frozen": _part})),
        "first_layer": optional(_first_layer),
        "classes": list_of(text),
        "confusion": _confusion,
        "norms": _norms,
        "masks": list_of(record({"name": text, **dict.fromkeys(_MASK, count)})),
        "members": list_of(record({"top1": number, "history": _history})),
        "measured": mapping_of(number),
        "inference_bytes": record({"stored": count, "in_memory": count}),
        "stored_bytes": record({"shared": count, "members": list_of(count)}),
    },
)
_done = record({"best_top1": number, "last_top1": number, "history": _history, **_parameters})
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
