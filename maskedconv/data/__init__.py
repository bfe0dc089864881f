"""Datasets, stored as uint8 on the compute device and augmented there.

``check``, ``describe`` and ``available`` work without torch; the other names import it on use.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from maskedconv.data.catalogue import DatasetInfo, available, describe
from maskedconv.data.errors import DataError, MissingDataError
from maskedconv.data.sources import check

_HOMES = {
    "Dataset": "dataset",
    "Task": "task",
    "load": "loading",
    "noise": "random_examples",
    "normalise": "augment",
    "num_batches": "batches",
    "random_crop_flip": "augment",
    "test_batches": "batches",
    "train_batches": "batches",
}

__all__ = [
    "DataError",
    "Dataset",
    "DatasetInfo",
    "MissingDataError",
    "Task",
    "available",
    "check",
    "describe",
    "load",
    "noise",
    "normalise",
    "num_batches",
    "random_crop_flip",
    "test_batches",
    "train_batches",
]

if TYPE_CHECKING:
    from maskedconv.data.augment import normalise, random_crop_flip
    from maskedconv.data.batches import num_batches, test_batches, train_batches
    from maskedconv.data.dataset import Dataset
    from maskedconv.data.loading import load
    from maskedconv.data.random_examples import noise
    from maskedconv.data.task import Task


def __getattr__(name: str) -> Any:
    if name == "Facts":
        warnings.warn("maskedconv.data.Facts is now DatasetInfo", DeprecationWarning, stacklevel=2)
        return DatasetInfo
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
