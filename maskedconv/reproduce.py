"""``python -m maskedconv.reproduce``: runs the paper's figures and tables and draws the report."""

from __future__ import annotations

import datetime
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskedconv import data
from maskedconv.experiments import EXPERIMENTS, Experiment, RunConfig, Store, registry
from maskedconv.experiments.commandline import (
    INTERRUPTED,
    SOME_FAILED,
    check_device,
    open_device,
    say,
    usage_errors,
)
from maskedconv.experiments.images import Source
from maskedconv.experiments.presets import PRESETS, Settings
from maskedconv.experiments.presets import settings as settings_of
from maskedconv.experiments.progress import ConsoleObserver, duration
from maskedconv.experiments.runner import run_all, unique
from maskedconv.experiments.store import Loaded, Row, StoreError

if TYPE_CHECKING:
    import torch

    from maskedconv.data import Dataset
    from maskedconv.experiments.images import Size

FAILURES_SHOWN = 20
Plan = dict[Experiment, list[RunConfig]]


def main(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help=f"{', '.join(EXPERIMENTS)}, or all (the default).", metavar="[ID]..."),
    ] = None,
    preset: Annotated[str, typer.Option(help=f"{', '.join(PRESETS)}.")] = "quick",
    dataset: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(data.available())}; by default the preset's."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the images are.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch CIFAR first.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results and report.", show_default="runs/<preset>"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds of every run.")] = 1,
    epochs: Annotated[int | None, typer.Option(help="In place of the preset's.")] = None,
    subset: Annotated[int | None, typer.Option(help="Training images per class.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; by default 1 for quick, else all.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the experiments and stop.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and for how long, and stop.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Draw no report.")] = False,
) -> None:
    """Run the figures and tables of Rosenfeld & Tsotsos 2018 and draw a report of them.

    Without options: small networks on scikit-learn's digits, a few minutes on a CPU. Runs that are
    already in the folder are not repeated, so an interrupted command goes on where it was.

    Exit status: 0 done, 1 some runs failed, 2 usage or missing data, 130 interrupted.
    """
    start = time.perf_counter()
    with usage_errors():
        if list_:
            _print_list()
            return
        experiments = registry.select(ids or [])
        settings = settings_of(preset, dataset=dataset, epochs=epochs, subset=subset, seeds=seeds)
        check_device(device, threads)
        source = Source(data_dir, download)
        _check_data(settings, source, needed=not dry_run)
        store = Store(out or Path("runs") / preset)
        plan = {experiment: experiment.runs(settings) for experiment in experiments}
        if "all" in (ids or ["all"]):
            _name_unbuilt()
        torch_device = open_device(device, threads or settings.threads)
        if dry_run:
            _dry_run(plan, settings, store, source, torch_device)
            return
        store.prepare()
        datasets = _open(store, plan, settings, source, torch_device)
    rows = _run(plan, store, datasets)
    if not no_report:
        _draw(store.out)
    print(f"wall time: {duration(time.perf_counter() - start)}")
    if failed := [row for row in rows.values() if row["status"] == "failed"]:
        _name_failed(failed)
        raise typer.Exit(SOME_FAILED)


def _print_list() -> None:
    for item in EXPERIMENTS.values():
        note = "" if item.built else " (not built yet)"
        print(f"{item.id:<8}{item.reference:<10}{item.title}{note}")


def _name_unbuilt() -> None:
    if unbuilt := [item.id for item in EXPERIMENTS.values() if not item.built]:
        say(f"not built yet, so not run: {', '.join(unbuilt)}")


def _check_data(settings: Settings, source: Source, needed: bool) -> None:
    """Cheap checks that the images are there; where they are not needed yet, a warning only."""
    for name in settings.datasets:
        data.describe(name)
        try:
            data.check(name, source.data_dir, source.download, settings.subset)
        except data.DataError as error:
            if needed or not isinstance(error, data.MissingDataError):
                raise ValueError(f"{error}{_one_alone(settings)}") from error
            say(f"note: {error}")


def _one_alone(settings: Settings) -> str:
    if len(settings.datasets) == 1:
        return ""
    names = " and ".join(settings.datasets)
    return f" (the preset {settings.preset} is for {names}; --dataset takes one of them alone)"


def _open(
    store: Store, plan: Plan, settings: Settings, source: Source, device: torch.device
) -> dict[str, Dataset]:
    """Loads the data, and writes the plan once it is sure that the folder is for these runs."""
    dataset_names = ", ".join(settings.datasets)
    old = store.read_plan()
    if old is not None and (old["preset"], old["dataset"]) != (settings.preset, dataset_names):
        raise ValueError(
            f"{store.out} holds the preset {old['preset']} on {old['dataset']}, not "
            f"{settings.preset} on {dataset_names}; choose another folder with --out"
        )
    loaded = store.load()
    for problem in loaded.problems:
        say(f"note: {problem}")
    datasets = {name: source.load(name, settings.subset, device) for name in settings.datasets}
    _check_same_data(store, loaded, datasets, settings.subset)
    command = shlex.join(["python", "-m", "maskedconv.reproduce", *sys.argv[1:]])
    store.merge_plan(
        {
            "preset": settings.preset,
            "dataset": dataset_names,
            "data_note": "; ".join(dataset.note for dataset in datasets.values()),
            "command": command,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "experiments": {
                experiment.id: {
                    "title": experiment.title,
                    "command": command,
                    "runs": [{"key": run.key, "config": run.to_json()} for run in runs],
                }
                for experiment, runs in plan.items()
            },
        }
    )
    return datasets


def _check_same_data(
    store: Store, loaded: Loaded, datasets: dict[str, Dataset], subset: int | None
) -> None:
    """A JPEG copy and the original have one name; their results must not be mixed."""
    for row in loaded.rows.values():
        config = row.get("config", {})
        dataset = datasets.get(config.get("dataset"))
        if dataset is None or config.get("subset") != subset:
            continue
        if row.get("data_note") not in (None, dataset.note):
            raise ValueError(
                f"{store.out} holds results of other data: {row['data_note']!r}, not "
                f"{dataset.note!r}; choose another folder with --out"
            )


def _run(plan: Plan, store: Store, datasets: dict[str, Dataset]) -> dict[str, Row]:
    configs = unique(run for runs in plan.values() for run in runs)
    loaded = store.load()
    rows = {run.key: row for run in configs if (row := loaded.finished(run.key))}
    pending = [run for run in configs if run.key not in rows]
    if rows:
        say(f"{len(rows)} of {len(configs)} runs are in {store.out} already")
    try:
        with ConsoleObserver(pending) as observer:
            return rows | run_all(pending, store, lambda run: datasets[run.dataset], observer)
    except KeyboardInterrupt:
        loaded = store.load()
        kept = sum(loaded.finished(run.key) is not None for run in configs)
        say(
            f"interrupted: {kept} of {len(configs)} finished runs are kept in {store.out}; "
            "the same command goes on from there"
        )
        raise typer.Exit(INTERRUPTED) from None
    except StoreError as error:
        say(f"error: {error}; finished runs are kept, the same command goes on from there")
        raise typer.Exit(SOME_FAILED) from error


def _draw(out: Path) -> None:
    from maskedconv import report

    try:
        print(f"report: {report.write(out)}")
    except (ImportError, OSError) as error:
        say(f"error: the report was not drawn: {error}")
        say(f"the results are kept; draw it again with: python -m maskedconv.report --out {out}")
        raise typer.Exit(SOME_FAILED) from error


def _name_failed(rows: list[Row]) -> None:
    say(f"{len(rows)} runs failed:")
    for row in rows[:FAILURES_SHOWN]:
        say(f"  {RunConfig.from_json(row['config']).label()}: {row['error']}")
    if len(rows) > FAILURES_SHOWN:
        say(f"  and {len(rows) - FAILURES_SHOWN} more; see the report")


def _dry_run(
    plan: Plan, settings: Settings, store: Store, source: Source, device: torch.device
) -> None:
    from maskedconv.experiments.estimate import estimate

    sizes = {name: source.size(name, settings.subset, device) for name in settings.datasets}
    loaded = store.load()
    configs = unique(run for runs in plan.values() for run in runs)
    pending = [run for run in configs if not loaded.finished(run.key)]
    say("timing a batch of each network ...")
    seconds = estimate(pending, sizes, device)
    counted: set[str] = set()
    print(f"{'':8}{'runs':>6}{'to do':>7}{'epochs':>8}{'images':>14}  time")
    for experiment, runs in plan.items():
        mine = [run for run in runs if run.key in seconds and run.key not in counted]
        counted |= {run.key for run in mine}
        print(f"{experiment.id:8}{len(runs):6}{_amount(mine, sizes, seconds)}")
    print(f"{'total':8}{len(configs):6}{_amount(pending, sizes, seconds)}")


def _amount(runs: list[RunConfig], sizes: dict[str, Size], seconds: dict[str, float]) -> str:
    epochs = sum(run.epochs for run in runs)
    images = sum(run.epochs * sizes[run.dataset].train_images for run in runs)
    time_ = duration(sum(seconds[run.key] for run in runs))
    return f"{len(runs):7}{epochs:8,}{images:14,}  about {time_}"


if __name__ == "__main__":
    typer.run(main)
