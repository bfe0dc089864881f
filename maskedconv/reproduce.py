"""``python -m maskedconv.reproduce``: runs the papers' experiments and draws the report."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskedconv import data, papers
from maskedconv.checks import check_choice, check_number
from maskedconv.cli import typer
from maskedconv.cli.listing import print_estimate, print_items
from maskedconv.cli.options import (
    AMP_HELP,
    COMPILE_HELP,
    GRAPH_HELP,
    SOME_FAILED,
    check_device,
    check_one_process,
    open_amp,
    open_graph,
    usage_errors,
)
from maskedconv.cli.running import run_missing
from maskedconv.console import duration, say
from maskedconv.runs import RunConfig, Store
from maskedconv.runs.engine import Engine
from maskedconv.runs.images import DataKey, DataLocations, parse_folders
from maskedconv.runs.parallel import count_cores, divide_cores, parse_parallel
from maskedconv.runs.planning import (
    Plan,
    all_runs,
    check_data,
    check_folder,
    check_same_data,
    data_keys,
    matching,
    name_unused_folders,
    write_plan,
)
from maskedconv.runs.preset import Request
from maskedconv.runs.row import Row
from maskedconv.runs.sequential import unique
from maskedconv.runs.workers import WorkerConfig, Workers
from maskedconv.training.compiled import check_compile
from maskedconv.training.device import open_device

if TYPE_CHECKING:
    import torch

    from maskedconv.data import Task

FAILURES_SHOWN = 20


def main(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help=f"{', '.join(papers.ITEMS)}, or all (the default).", metavar="[ID]..."),
    ] = None,
    preset: Annotated[str, typer.Option(help=f"{', '.join(papers.PRESETS)}.")] = "quick",
    dataset: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(data.available())}; by default the preset's."),
    ] = None,
    data_dir: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of the images: DIR, or NAME=DIR for each of several data sets.",
            metavar="[NAME=]DIR",
        ),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch CIFAR or MNIST.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results and report.", show_default="runs/<preset>"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds of every run.")] = 1,
    epochs: Annotated[int | None, typer.Option(help="By default the preset's.")] = None,
    subset: Annotated[int | None, typer.Option(help="Training images per class.")] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(
            help="Only the runs whose label, as --list --verbose shows it, contains TEXT; "
            "several times for several texts.",
            metavar="TEXT",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    amp: Annotated[str, typer.Option(help=AMP_HELP)] = "auto",
    graph: Annotated[str, typer.Option(help=GRAPH_HELP)] = "auto",
    compile: Annotated[bool, typer.Option("--compile", help=COMPILE_HELP)] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a run; by default 1 for quick, else all.")
    ] = None,
    parallel: Annotated[
        str,
        typer.Option(
            help="Number of parallel runs, each in its own process; auto: on a CPU with --threads, "
            "or for quick, as many as its cores allow (at most 8), else one.",
            metavar="N|auto",
        ),
    ] = "auto",
    engine: Annotated[
        str, typer.Option(help="processes of this machine, or ray: tasks of a Ray cluster.")
    ] = "processes",
    address: Annotated[
        str | None,
        typer.Option(
            help="With ray: local starts a cluster here (the default); auto joins the running one.",
            metavar="local|auto|HOST:PORT",
        ),
    ] = None,
    gpus_per_run: Annotated[
        float | None, typer.Option(help="With ray: the share of a GPU per run, such as .25.")
    ] = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Minutes between two checkpoints of a run.")
    ] = 2.0,
    list_: Annotated[
        bool, typer.Option("--list", help="List the experiments with their runs and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the missing runs and their time, and stop.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="With --list or --dry-run: name every run.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Draw no report.")] = False,
) -> None:
    """Run the figures and tables of the papers and draw a report of them.

    Without options: small networks on scikit-learn's digits, a few minutes on a CPU. Finished runs
    in the folder are not repeated, and an interrupted command resumes.

    Exit status: 0 done, 1 some runs failed, 2 usage or missing data, 130 interrupted.
    """
    start = time.perf_counter()
    with usage_errors():
        check_one_process()
        locations = DataLocations(parse_folders(data_dir or []), download)
        request = Request(
            preset, dataset, frozenset(locations.folders), epochs=epochs, subset=subset, seeds=seeds
        )
        check_choice("preset", preset, papers.PRESETS)
        if dataset is not None:
            data.describe(dataset)
        check_device(device, threads)
        check_number("checkpoint_minutes", checkpoint_minutes)
        if list_ and dry_run:
            raise ValueError("list is True and dry_run is True; expected one of them")
        if verbose and not (list_ or dry_run):
            raise ValueError("verbose is True; expected --list or --dry-run with it")
        asked = parse_parallel(parallel)
        place = Engine(engine, address, gpus_per_run)
        if place.is_ray and dry_run:
            raise ValueError(
                "dry_run is True with engine ray; expected --engine processes, "
                "as batches are timed on this machine"
            )
        items = papers.select(ids or [])
        found = _device_of_runs(place, device)
        request = replace(request, amp=open_amp(amp, found), compile=compile)
        plan = papers.make_plan(items, request)
        chosen = matching(plan, match or [])
        open_graph(graph, found, (run.optimizer for run in all_runs(chosen)))
        check_compile(compile, found.type)
        if list_:
            print_items(chosen, verbose)
            return
        for remark in papers.remarks(items, request):
            say(f"note: {remark}")
        name_unused_folders(chosen, locations)
        check_data(chosen, locations, needed=not dry_run)
        store = Store(out or Path("runs") / preset)
        at_once, threads = asked, threads or plan.preset.threads
        if not place.is_ray:
            at_once, threads = divide_cores(asked, threads, found.type, count_cores())
            open_device(device, threads)
        seconds = 60 * checkpoint_minutes
        worker_config = WorkerConfig(store.out, found.type, threads, seconds, graph)
        if dry_run:
            sizes = {key: locations.size(key, found) for key in data_keys(chosen)}
            workers = Workers(at_once or 1, found.type, threads)
            print_estimate(chosen, plan, sizes, store, workers, verbose)
            return
        store.prepare()
        # Worker processes move the images to the device themselves.
        here = at_once == 1 and not place.is_ray
        images_on = found if here else open_device("cpu", threads)
        datasets = _load(store, chosen, locations, images_on)
        planned = write_plan(store, chosen, plan, datasets, _command())
    trained = [planned[run.key] for run in all_runs(chosen)]
    _name_same_runs(trained)
    rows = run_missing(unique(trained), datasets, worker_config, place, at_once)
    if not no_report:
        _draw(store.out)
    print(f"wall time: {duration(time.perf_counter() - start)}")
    if failed := [row for row in rows.values() if row["status"] == "failed"]:
        _name_failed(failed)
        raise typer.Exit(SOME_FAILED)


def _device_of_runs(place: Engine, asked: str) -> torch.device:
    """This machine's device, or for Ray that of the cluster, which this machine may lack."""
    if not place.is_ray:
        return open_device(asked, None)
    import torch

    return torch.device(place.device(asked))


def _load(
    store: Store, plan: Plan, locations: DataLocations, device: torch.device
) -> dict[DataKey, Task]:
    """Checks that the folder is for these runs, and loads their data."""
    check_folder(store, plan.preset)
    loaded = store.load()
    for problem in loaded.problems:
        say(f"note: {problem}")
    datasets = {key: locations.load(key, device) for key in data_keys(plan)}
    check_same_data(store, loaded, datasets)
    return datasets


def _command() -> str:
    return shlex.join(["python", "-m", "maskedconv.reproduce", *sys.argv[1:]])


def _name_same_runs(trained: list[RunConfig]) -> None:
    others = len(trained) - len(unique(trained))
    if others:
        say(
            f"{others} of {len(trained)} runs learn the same slices of the same network as another "
            "run, and share its training"
        )


def _draw(out: Path) -> None:
    from maskedconv import report

    try:
        print(f"report: {report.write(out)}")
    except (ImportError, OSError) as error:
        say(f"error: the report was not drawn: {error}")
        say(f"the results are kept; draw it with: python -m maskedconv.report --out {out}")
        raise typer.Exit(SOME_FAILED) from error


def _name_failed(rows: list[Row]) -> None:
    say(f"{len(rows)} runs failed:")
    for row in rows[:FAILURES_SHOWN]:
        say(f"  {RunConfig.from_json(row['config']).label()}: {row['error']}")
    if len(rows) > FAILURES_SHOWN:
        say(f"  and {len(rows) - FAILURES_SHOWN} more; see the report")


if __name__ == "__main__":
    typer.run(main)
