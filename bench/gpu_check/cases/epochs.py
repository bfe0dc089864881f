"""In the remaining time: the first epoch of the authors' runs on real images."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.gpu_check.author_epochs import published
from bench.gpu_check.device import Device
from maskedconv.data import Dataset
from maskedconv.models import recipe
from maskedconv.runs.config import RunConfig
from maskedconv.runs.execute import execute
from maskedconv.runs.images import DataLocations


@functools.cache
def images(dataset: str, folder: str, device_name: str) -> Dataset:
    """The dataset, loaded once per process."""
    locations = DataLocations({"": Path(folder)} if folder else {})
    return locations.load((dataset, None), torch.device(device_name))


def run(case: str, device: Device, options: dict[str, Any]) -> dict[str, Any]:
    model, learned, slice_dim, frozen, bn_learned, trained = case.split(" | ")
    settings = asdict(recipe(model)) | {"epochs": 1}
    del settings["dropout"]
    config = RunConfig(
        **settings,
        model=model,
        dataset=options["dataset"],
        learned=int(learned) if learned.isdigit() else float(learned),
        slice_dim=int(slice_dim),
        frozen=frozen,
        bn_learned=bn_learned == "True",
        trained=trained,
    )
    row = execute(config, images(options["dataset"], options["data_dir"], device.name))
    if row["status"] != "done":
        raise RuntimeError(f"{row['error_type']}: {row['error']}")
    names = ("key", "history", "learned_parameters", "total_parameters", "peak_memory_bytes")
    found = {f"run_{name}": row[name] for name in names}
    return {**found, "top1": row["last_top1"], "published": published(case, config.dataset)}
