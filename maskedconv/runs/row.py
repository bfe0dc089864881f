"""The row of a finished run, one line of ``results.jsonl``.

``runs/formats.py`` checks a line by these types. Files of earlier versions may lack the keys that
are ``NotRequired``.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from typing import Any, NotRequired, TypedDict, cast

from maskedconv.runs.config import RunConfig
from maskedconv.training.history import History, Span


class EpochRow(TypedDict):
    """A :class:`maskedconv.training.history.Epoch`, with None for numbers that are not finite."""

    epoch: int
    test_top1: float | None
    train_loss: NotRequired[float | None]
    train_top1: NotRequired[float | None]
    test_loss: NotRequired[float | None]
    seconds: NotRequired[float | None]
    lr: NotRequired[float | None]


class Outcome(TypedDict):
    """The epochs of a run, and its last and best top-1 on the test set in percent."""

    history: list[EpochRow]
    last_top1: float | None
    best_top1: float | None
    best_epoch: int | None


class WeightsPart(TypedDict):
    """Statistics of the learned or the frozen weights of a layer."""

    count: int
    mean_abs: float
    variance: float


class LayerRow(TypedDict):
    """Statistics of a convolution; None for a missing part."""

    name: str
    kind: NotRequired[str]
    learned: NotRequired[WeightsPart | None]
    frozen: NotRequired[WeightsPart | None]


class MaskRow(TypedDict):
    """Weights of a supermask layer: all, kept, and those that a global threshold would keep."""

    name: str
    size: int
    kept: int
    kept_globally: int


class FirstLayer(TypedDict):
    """The first convolution's filters: ``shape`` [O, I, kH, kW], flattened ``values``."""

    shape: list[int]
    learned: int
    values: list[float]


class KeptWeights(TypedDict):
    """The file of a run's weights, relative to the output folder, and a description of them.

    ``confusion`` [C, C] counts the test images by true class (rows) and predicted class.
    """

    weights: str
    layers: list[LayerRow]
    first_layer: FirstLayer | None
    classes: NotRequired[list[str]]
    confusion: NotRequired[list[list[int]]]


class NormsPart(TypedDict):
    """The scales γ of all BatchNorms: a histogram, and how many have |γ| < .01."""

    counts: list[int]
    small: int


class NormsRow(TypedDict):
    """γ before and after the training; ``counts`` divide ``low`` to ``high`` into equal bins.

    Values beyond the bounds count in the first and the last bin.
    """

    low: float
    high: float
    before: NormsPart
    after: NormsPart


class MemberRow(TypedDict):
    """A member of an ensemble: its last top-1 in percent and its epochs."""

    top1: float
    history: list[EpochRow]


class MemberBytes(TypedDict):
    """File sizes in bytes of the own part of each member of an ensemble."""

    members: list[int]


class StoredBytes(MemberBytes):
    """The members' sizes, and that of the start."""

    shared: int


class EnsembleOutcome(Outcome):
    """The outcome of an ensemble: its members, their joint top-1 in percent, and their sizes."""

    members: list[MemberRow]
    ensemble_top1: float
    stored_bytes: MemberBytes


class InferenceBytes(TypedDict):
    """Bytes that inference needs of a network, as ``maskedconv.counting.InferenceBytes``."""

    stored: int
    in_memory: int


class Row(TypedDict):
    """The row of a run, one line of ``results.jsonl``. ``status`` is "done" or "failed".

    ``measured`` has further results of the data set, in percent. ``spans`` are the parts of
    ``seconds`` by process, if there were several; ``started`` is the start of the last one.
    """

    key: str
    config: dict[str, Any]
    schema: NotRequired[int]
    started: NotRequired[str | None]
    status: NotRequired[str]
    error: NotRequired[str | None]
    error_type: NotRequired[str | None]
    history: NotRequired[list[EpochRow]]
    last_top1: NotRequired[float | None]
    best_top1: NotRequired[float | None]
    best_epoch: NotRequired[int | None]
    measured: NotRequired[dict[str, float]]
    inference_bytes: NotRequired[InferenceBytes]
    learned_parameters: NotRequired[int]
    total_parameters: NotRequired[int]
    seconds: NotRequired[float | None]
    spans: NotRequired[list[Span]]
    peak_memory_bytes: NotRequired[int | None]
    device: NotRequired[str | None]
    versions: NotRequired[dict[str, str]]
    data_note: NotRequired[str | None]
    data_digest: NotRequired[str | None]
    weights: NotRequired[str]
    layers: NotRequired[list[LayerRow]]
    first_layer: NotRequired[FirstLayer | None]
    classes: NotRequired[list[str]]
    confusion: NotRequired[list[list[int]]]
    norms: NotRequired[NormsRow]
    masks: NotRequired[list[MaskRow]]
    members: NotRequired[list[MemberRow]]
    ensemble_top1: NotRequired[float | None]
    stored_bytes: NotRequired[StoredBytes]


def begin_row(config: RunConfig) -> Row:
    """The row of a run that starts now."""
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"key": config.key, "config": config.to_json(), "started": started}


def fail(row: Row, error: str, error_type: str, history: History) -> None:
    """Turns ``row`` into the row of a run that failed after the epochs of ``history``."""
    row.update({"status": "failed", "error": error, "error_type": error_type})
    row.update(cast(Row, outcome(history)))


def outcome(history: History) -> Outcome:
    """``history`` with its last and best top-1 as JSON values."""
    epochs = epochs_of(history)
    best = None if history.best is None else epochs[history.best.epoch - 1]
    return {
        "history": epochs,
        "last_top1": epochs[-1]["test_top1"] if epochs else None,
        "best_top1": None if best is None else best["test_top1"],
        "best_epoch": None if best is None else best["epoch"],
    }


def epochs_of(history: History) -> list[EpochRow]:
    """The epochs, with six decimals: more digits than a repetition reproduces."""
    return [
        cast(
            EpochRow,
            {
                name: round(value, 6)
                if isinstance(value, float) and math.isfinite(value)
                else value
                for name, value in dataclasses.asdict(epoch).items()
            },
        )
        for epoch in history.epochs
    ]
