"""One run from its configuration to its row."""

from __future__ import annotations

import dataclasses
import datetime
import math
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskedconv import env, models
from maskedconv.counting import count_parameters
from maskedconv.data import Dataset
from maskedconv.experiments.config import RunConfig
from maskedconv.experiments.store import Row
from maskedconv.selection import select_learned_
from maskedconv.training import Diverged, Epoch, History, train


def build_model(
    config: RunConfig, num_classes: int, image_shape: tuple[int, int, int]
) -> nn.Module:
    """The network of ``config`` for images of ``image_shape`` (C, H, W), on the CPU.

    Raises:
        ValueError, TypeError: what ``maskedconv.models.create`` and ``select_learned_`` refuse.
    """
    options: dict[str, Any] = dict(config.options)
    if config.dropout:
        options["dropout"] = config.dropout
    model = models.create(
        config.model,
        num_classes=num_classes,
        learned=config.learned,
        slice_dim=config.slice_dim,
        frozen=config.frozen,
        seed=config.seed,
        in_channels=image_shape[0],
        image_size=image_shape[1],
        init=config.init,
        bn_learned=config.bn_learned,
        **options,
    )
    if config.trained != "all":
        select_learned_(model, config.trained)
    return model


def execute(
    config: RunConfig, dataset: Dataset, on_epoch: Callable[[Epoch], None] | None = None
) -> Row:
    """Does the run on the device of ``dataset``; returns its row, of status "done" or "failed".

    Whatever goes wrong within the run is told in the row; an interrupt is passed on.
    """
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    start = time.perf_counter()
    _reset_peak_memory(dataset.device)
    row: Row = {"key": config.key, "config": config.to_json(), "started": started}
    try:
        # Weights, order and augmentation have their own generators; dropout draws from this one.
        torch.manual_seed(config.seed)
        model = build_model(config, dataset.num_classes, dataset.image_shape)
        counts = count_parameters(model)
        row |= {"learned_parameters": counts.learned, "total_parameters": counts.total}
        history = train(
            model,
            dataset,
            epochs=config.epochs,
            batch_size=config.batch_size,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            milestones=config.milestones,
            gamma=config.gamma,
            nesterov=config.nesterov,
            schedule=config.schedule,
            seed=config.seed,
            on_epoch=on_epoch,
        )
        row |= {"status": "done", "error": None, "error_type": None, **_results(history)}
    except Exception as error:
        history = error.history if isinstance(error, Diverged) else History()
        row |= {
            "status": "failed",
            "error": str(error) or type(error).__name__,
            "error_type": type(error).__name__,
            **_results(history),
        }
    return row | {
        "seconds": round(time.perf_counter() - start, 3),
        "peak_memory_bytes": _peak_memory(dataset.device),
        "device": describe_device(dataset.device),
        "versions": versions(),
        "data_note": dataset.note,
    }


def versions() -> dict[str, str]:
    """Python and the packages that results depend on, with their versions."""
    found = env.collect()
    return {"python": found["python"], **{k: v for k, v in found["versions"].items() if v}}


def describe_device(device: torch.device) -> str:
    """The device in words, such as ``cpu (2 threads)``."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{device.type} ({threads} thread{'s' if threads > 1 else ''})"


def _results(history: History) -> dict[str, Any]:
    epochs = [_rounded(dataclasses.asdict(epoch)) for epoch in history.epochs]
    best = None if history.best is None else epochs[history.best.epoch - 1]
    return {
        "history": epochs,
        "last_top1": epochs[-1]["test_top1"] if epochs else None,
        "best_top1": None if best is None else best["test_top1"],
        "best_epoch": None if best is None else best["epoch"],
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    """Six digits after the point, far below what a repetition of the run would reproduce."""
    return {
        name: round(value, 6) if isinstance(value, float) and math.isfinite(value) else value
        for name, value in values.items()
    }


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Linux forgets the highest resident size of this process; elsewhere it covers earlier runs.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on CUDA, resident of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
