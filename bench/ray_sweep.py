"""A sweep on a local Ray cluster with a worker that is killed midway, against the sequence.

``python -m bench.ray_sweep`` trains 40 small networks on the digits in four workers, kills one of
them by SIGKILL in the middle of a run, compares all rows with those of a sequence in one process,
and starts the sweep a second time. It writes ``bench/results/ray-sweep.md``; the exit status is 1
if a row is missing, doubled or different.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import torch

from maskedconv import data
from maskedconv.io import replace_file
from maskedconv.runs import RunConfig, Store
from maskedconv.runs.engine import Engine
from maskedconv.runs.images import DataKey
from maskedconv.runs.on_ray import run_on_ray
from maskedconv.runs.sequential import run_all
from maskedconv.runs.workers import WorkerConfig
from tests.support.killed_workers import kill_one_midway, results

WORKERS = 4
SEEDS = 10
LEARNED = (0.1, 0.25, 0.5, 1.0)
SUBSET = 10
KILL_AFTER = 12
OUT = Path(__file__).parent / "results" / "ray-sweep.md"


class Silent:
    """An observer that shows nothing."""

    def started(self, config: object) -> None: ...
    def epoch(self, config: object, epoch: object) -> None: ...
    def finished(self, config: object, row: object) -> None: ...
    def waiting(self, runs: int) -> None: ...


def main() -> None:
    torch.set_num_threads(1)
    runs = _runs()
    datasets: dict[DataKey, data.Task] = {("digits", SUBSET): data.load("digits", subset=SUBSET)}
    with tempfile.TemporaryDirectory(prefix="maskedconv-") as folder:
        ray, sequence = (_prepared(Path(folder, name)) for name in ("ray", "sequence"))
        with ThreadPoolExecutor(1) as thread:
            killed = thread.submit(kill_one_midway, ray.out, KILL_AFTER)
            seconds = _sweep(runs, datasets, ray)
            key = killed.result()
        lines = ray.results.read_bytes()
        again = _sweep(runs, datasets, ray)
        run_all(runs, sequence, lambda _: datasets["digits", SUBSET], Silent())
        keys = [json.loads(line)["key"] for line in lines.splitlines()]
        checks = {
            f"rows: {len(keys)} of {len(runs)}": len(keys) == len(runs),
            f"different keys: {len(set(keys))}": set(keys) == {run.key for run in runs},
            "all done": {row["status"] for row in results(ray.out).values()} == {"done"},
            "rows equal those of the sequence to the bit": results(ray.out)
            == results(sequence.out),
            "a second start adds nothing": ray.results.read_bytes() == lines,
        }
    label = next(run.label() for run in runs if run.key == key)
    _write(checks, label, f"{seconds:.0f} s, the second start {again:.0f} s")
    sys.exit(0 if all(checks.values()) else 1)


def _runs() -> list[RunConfig]:
    return [
        RunConfig(
            model="wrn_10_1", dataset="digits", learned=learned, seed=seed, subset=SUBSET,
            epochs=3, batch_size=8, lr=0.05, momentum=0.9, weight_decay=1e-3, milestones=(2,),
            gamma=0.1,
        )
        for learned in LEARNED
        for seed in range(SEEDS)
    ]  # fmt: skip


def _prepared(out: Path) -> Store:
    store = Store(out)
    store.prepare()
    return store


def _sweep(runs: list[RunConfig], datasets: dict[DataKey, data.Task], store: Store) -> float:
    """Executes the missing runs in four workers, a checkpoint for each batch; the seconds."""
    start = time.perf_counter()
    # Seconds of 0 write a checkpoint before every batch, so that the killed run has one.
    options = WorkerConfig(store.out, "cpu", 1, checkpoint_seconds=0.0)
    loaded = store.load()
    missing = [run for run in runs if loaded.finished(run.key) is None]
    run_on_ray(missing, datasets, Silent(), options, Engine("ray", "local"), WORKERS)
    return time.perf_counter() - start


def _write(checks: dict[str, bool], killed: str, times: str) -> None:
    lines = [
        "# A sweep on Ray with a killed worker",
        "",
        f"`python -m bench.ray_sweep`: {len(LEARNED) * SEEDS} runs of wrn_10_1 on the digits, "
        f"{WORKERS} workers of a local cluster (Ray {version('ray')}, torch {torch.__version__}), "
        f"{times}. After {KILL_AFTER} rows a worker got SIGKILL in the middle of a run that had a "
        f"checkpoint: {killed}.",
        "",
        "| check | holds |",
        "|---|---|",
        *(f"| {name} | {'yes' if holds else '**no**'} |" for name, holds in checks.items()),
        "",
    ]
    text = "\n".join(lines)
    print(text)
    replace_file(OUT, text.encode())


if __name__ == "__main__":
    main()
