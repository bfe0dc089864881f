"""Made-up plans and rows for the report's tests: no training, the same numbers every time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskedconv.experiments.config import RunConfig

Top1 = Callable[[RunConfig], float | None]
SIZES = {"densenet": 40_000, "wrn": 78_000, "vgg19": 320_000, "alexnet": 45_000}


def config(model: str = "densenet_bc_16_12", **fields: Any) -> RunConfig:
    """A short run on digits unless told otherwise."""
    defaults: dict[str, Any] = {
        "dataset": "digits",
        "learned": 1.0,
        "epochs": 5,
        "batch_size": 64,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "milestones": (150, 225),
        "gamma": 0.1,
    }
    return RunConfig(model=model, **{**defaults, **fields})


def row(run: RunConfig, top1: float | None, **fields: Any) -> dict[str, Any]:
    """The row of a finished run that reached ``top1``, or of one that diverged (None)."""
    total = next(size for name, size in SIZES.items() if run.model.startswith(name))
    share = min(run.learned / 16, 1) if isinstance(run.learned, int) else run.learned
    done = top1 is not None
    history = [
        {
            "epoch": epoch,
            "train_loss": 2.3 / epoch,
            "train_top1": 10.0 + epoch,
            "test_loss": 2.3 / epoch,
            "test_top1": top1 * epoch / run.epochs if done else None,
            "seconds": 1.5,
            "lr": run.lr,
        }
        for epoch in range(1, run.epochs + 1 if done else 3)
    ]
    return {
        "schema": 1,
        "key": run.key,
        "status": "done" if done else "failed",
        "config": run.to_json(),
        "learned_parameters": int(total * (0.05 + 0.95 * share)),
        "total_parameters": total,
        "history": history,
        "last_top1": top1,
        "best_top1": top1,
        "best_epoch": run.epochs if done else None,
        "seconds": 1.5 * run.epochs,
        "peak_memory_bytes": 2**28,
        "device": "cpu",
        "versions": {"python": "3.11", "torch": "2.11.0"},
        "data_note": "",
        "started": "2024-01-01T00:00:00Z",
        "error": None if done else "diverged in epoch 2",
        "error_type": None if done else "Diverged",
        **fields,
    }


def write_folder(
    out: Path, plan: dict[str, list[RunConfig]], top1: Top1, *, skip: int = 0, **fields: Any
) -> Path:
    """``plan.json`` and ``results.jsonl`` of ``plan``, the last ``skip`` runs not yet run."""
    out.mkdir(parents=True, exist_ok=True)
    experiments = {
        name: {
            "title": f"title of {name}",
            "runs": [{"key": run.key, "config": run.to_json()} for run in runs],
        }
        for name, runs in plan.items()
    }
    command = "python -m maskedconv.reproduce all --preset quick --out runs/quick"
    document = {
        "schema": 1,
        "preset": "quick",
        "dataset": "digits",
        "data_note": "",
        "command": command,
        "created": "2024-01-01T00:00:00Z",
        **fields,
        "experiments": experiments,
    }
    (out / "plan.json").write_text(json.dumps(document))
    runs = list({run.key: run for runs in plan.values() for run in runs}.values())
    lines = [json.dumps(row(run, top1(run))) for run in runs[: len(runs) - skip]]
    (out / "results.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return out


def small_plan(seeds: int = 2) -> dict[str, list[RunConfig]]:
    """The four experiments with small networks."""
    shares: tuple[float | int, ...] = (0.1, 0.4, 0.7, 1, 5)
    eighth = (("width", 0.125),)
    networks = [
        config("densenet_bc_16_12"),
        config("wrn_10_1"),
        config("vgg19", options=eighth),
        config("vgg19", options=eighth, lr=0.01),
        config("vgg19_bn", options=eighth),
    ]
    fig1 = [
        replace(network, learned=share, frozen=frozen)
        for network in networks
        for share in shares
        for frozen in ("random", "zero")
    ]
    fig1 += networks
    fig2 = [
        replace(networks[0], learned=share, frozen=frozen, slice_dim=dim, epochs=1)
        for dim in range(4)
        for share in (0.1, 0.4, 1, 5)
        for frozen in ("random", "zero")
    ]
    parts = ("bn", "conv1", "block1", "block2", "block3", "fc")
    table1 = [replace(network, trained=part) for network in networks[:2] for part in parts]
    plan = {"fig1": fig1, "fig2": fig2, "fig3": fig1, "table1": table1}
    return {name: _seeded(runs, seeds) for name, runs in plan.items()}


def small_top1(run: RunConfig) -> float | None:
    """Accuracies of the paper's shape; VGG-19 without BatchNorm at 0.1 is at chance or diverges."""
    if run.model == "vgg19" and run.lr == 0.1:
        return None if run.learned == 0.7 else 10.0
    share = min(run.learned / 16, 1) if isinstance(run.learned, int) else run.learned
    level = 90 + 18 * math.log10(0.05 + 0.95 * share) - (8 if run.model.startswith("vgg19") else 0)
    if run.trained != "all":
        level = {"bn": 52, "conv1": 55, "block1": 66, "block2": 78, "block3": 75}.get(
            run.trained, 60
        )
    zeroed = 30 * (1 - share) ** 3 if run.frozen == "zero" else 0
    channels = 9 if run.slice_dim == 1 else 0
    return max(10.0, level - zeroed - channels + 0.7 * run.seed)


def _seeded(runs: Iterable[RunConfig], seeds: int) -> list[RunConfig]:
    return [run.with_seed(seed) for seed in range(seeds) for run in runs]
