"""Synthetic plans and rows for the report's tests: no training, always the same numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskedconv.papers import PAPERS
from maskedconv.papers.rosenfeld2018 import PAPER
from maskedconv.papers.rosenfeld2018.presets import RosenfeldPreset
from maskedconv.report.claims import judge
from maskedconv.report.loading import load as load_with
from maskedconv.report.results import Results
from maskedconv.runs.config import RunConfig
from maskedconv.runs.preset import Request

Top1 = Callable[[RunConfig], float | None]
# The items of one paper; `preset_of` gives its presets.
ITEMS = {item.id: item for item in PAPER.items}
SIZES = {
    "densenet": 40_000,
    "wrn": 78_000,
    "vgg19": 320_000,
    "vgg_small": 72_000,
    "alexnet": 45_000,
    "resnet": 77_754,
    "imagenet": 11_689_512,
    "conv": 92_704,
    "transformer": 140_000,
}


def config(model: str = "densenet_bc_16_12", **fields: Any) -> RunConfig:
    """A short run, by default on digits."""
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
    extra = {}
    if top1 is not None and run.members:
        extra = _ensemble(run, top1)
    elif top1 is not None and run.keep:
        extra = _weights(run)
    total = next(size for name, size in SIZES.items() if run.model.startswith(name))
    share = min(run.learned / 16, 1) if isinstance(run.learned, int) else run.learned
    done = top1 is not None
    # The last epoch is a little worse than the best one, the one before it.
    best_epoch = max(run.epochs - 1, 1)
    last = top1 if top1 is None or run.epochs == 1 else max(top1 - 0.25, 0.0)
    history = [
        {
            "epoch": epoch,
            "train_loss": 2.3 / epoch,
            "train_top1": 10.0 + epoch,
            "test_loss": 2.3 / epoch,
            "test_top1": last if epoch > best_epoch or not done else top1 * epoch / best_epoch,
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
        "inference_bytes": {
            "stored": 4 * total,
            "in_memory": 4 * total // (2 if dict(run.options).get("fold") else 1),
        },
        "history": history,
        "last_top1": last,
        "best_top1": top1,
        "best_epoch": best_epoch if done else None,
        "seconds": 1.5 * run.epochs,
        "peak_memory_bytes": 2**28,
        "device": "cpu",
        "versions": {"python": "3.11", "torch": "2.11.0"},
        "data_note": "",
        "started": "2024-01-01T00:00:00Z",
        "error": None if done else "diverged in epoch 2",
        "error_type": None if done else "Diverged",
        **extra,
        **fields,
    }


def _ensemble(run: RunConfig, top1: float) -> dict[str, Any]:
    """Extra fields of an ensemble's row: members near ``top1``, and a better joint accuracy."""
    size = 40_000
    share = 0.05 if run.trained == "fc" else 0.05 + 0.95 * run.learned
    tops = [top1 + 0.2 * (member - 2) for member in range(run.members)]
    return {
        "history": [],
        "members": [{"top1": top, "history": []} for top in tops],
        "ensemble_top1": top1 + 4 * share**0.5 + (run.optimizer == "adam"),
        "learned_parameters": run.members * int(share * size),
        "total_parameters": size,
        "stored_bytes": {
            "shared": 4 * size + 9_000,
            "members": [int(4 * share * size) + 9_000] * run.members,
        },
    }


def _weights(run: RunConfig) -> dict[str, Any]:
    """Extra fields of a row with stored weights: eleven layers, 16 filters of 3×3."""
    learned = int(16 * run.learned)
    layers = []
    for place in range(11):
        size = 0.4 / (place + 1)
        parts = {"learned": (learned, size * (0.5 + run.learned)), "frozen": (16 - learned, size)}
        layers.append(
            {
                "name": f"conv{place}",
                "kind": "conv",
                **{
                    name: {"count": 9 * count, "mean_abs": mean, "variance": 1.57 * mean**2}
                    if count
                    else None
                    for name, (count, mean) in parts.items()
                },
            }
        )
    channels = 1 if run.dataset == "digits" else 3
    values = [float(f"{math.sin(1.7 * i):.4g}") for i in range(16 * channels * 9)]
    return {
        "weights": f"weights/{run.key}.safetensors",
        "layers": layers,
        "first_layer": {"shape": [16, channels, 3, 3], "learned": learned, "values": values},
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


def preset_of(name: str, **options: Any) -> RosenfeldPreset:
    """A preset of the paper with command-line options."""
    return PAPER.preset(Request(name, **options))


def runs_of(item: str, preset: str = "quick", **options: Any) -> list[RunConfig]:
    """The runs of an item under a preset of its own paper, with command-line options."""
    for paper in PAPERS:
        for one in paper.items:
            if one.id == item:
                return one.runs(paper.preset(Request(preset, **options)))
    raise ValueError(f"item is {item!r}; expected one of the papers'")


def load(out: Path) -> Results:
    """The results of a folder, with every paper known."""
    return load_with(out, PAPERS)


def results_of(
    tmp_path: Path, plan: dict[str, list[RunConfig]], top1: Top1, **fields: Any
) -> Results:
    """The results of a folder made for ``plan``."""
    return load(write_folder(tmp_path / "out", plan, top1, **fields))


def blocks_of(
    build: Callable[..., list[Any]], results: Results, item: str, folder: Path, kind: type
) -> list[Any]:
    """The blocks of one kind in a section."""
    return [block for block in build(results.seed_groups(item), folder) if isinstance(block, kind)]


def verdicts(results: Results) -> dict[str, str]:
    """The status of each claim, by its id."""
    return {verdict.claim.id: verdict.status for verdict in judge(results)}


def small_plan(seeds: int = 2) -> dict[str, list[RunConfig]]:
    """Every experiment of Rosenfeld & Tsotsos 2018 in the quick preset."""
    return {item.id: runs_of(item.id, seeds=seeds) for item in PAPER.items}


def small_top1(run: RunConfig) -> float | None:
    """Accuracies like the paper's; VGG-19 without BatchNorm at 0.1 is at chance or diverges."""
    if run.model in ("vgg19", "alexnet") and run.lr == 0.1:
        return None if run.learned == 0.7 else 10.0
    share = min(run.learned / 16, 1) if isinstance(run.learned, int) else run.learned
    without_bn = run.model in ("vgg19", "vgg19_bn", "alexnet")
    level = 90 + 18 * math.log10(0.05 + 0.95 * share) - (8 if without_bn else 0)
    if run.trained != "all":
        level = {"bn": 52, "conv1": 55, "block1": 66, "block2": 78, "block3": 75}.get(
            run.trained, 60
        )
    zeroed = 30 * (1 - share) ** 3 if run.frozen == "zero" else 0
    channels = 9 if run.slice_dim == 1 else 0
    fixed_bn = 0 if run.bn_learned else 12 * (1 - share)
    return max(10.0, level - zeroed - channels - fixed_bn + 0.7 * run.seed)
