"""The listings of ``reproduce``: items, runs, and estimated times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from maskedconv import data
from maskedconv.console import duration, say
from maskedconv.runs.config import RunConfig
from maskedconv.runs.images import DataKey, Size, data_key
from maskedconv.runs.planning import Plan, all_runs, trained_runs
from maskedconv.runs.same import trained_for
from maskedconv.runs.sequential import unfinished, unique
from maskedconv.runs.store import Loaded, Store

if TYPE_CHECKING:
    from maskedconv.runs.workers import Workers

Sizes = Mapping[DataKey, Size]


def print_items(plan: Plan, every_run: bool) -> None:
    """Prints a line for each item with its number of runs, and each run if ``every_run``."""
    trained = trained_for(all_runs(plan), Loaded())
    counted: set[str] = set()
    first, second = _width(one.id for one in plan.runs), _width(one.reference for one in plan.runs)
    for experiment, runs in plan.runs.items():
        new = {run.key for run in runs} - counted
        shared = f", {len(runs) - len(new)} of them above" if len(new) < len(runs) else ""
        same = sum(trained[run.key].key != run.key for run in runs)
        equals = f", {same} of them the same network as another" if same else ""
        count = f"{len(runs)} runs{shared}{equals}"
        names = f"{experiment.id:<{first}}{experiment.reference:<{second}}"
        print(f"{names}{experiment.title} ({count})")
        if every_run:
            for run in runs:
                above = "" if run.key in new else " (above)"
                print(f"  {run.key}  {run.label()}{above}{_same(run, trained[run.key])}")
        counted |= new
    networks = len(unique(trained.values()))
    once = f", {networks} networks to train" if networks < len(counted) else ""
    print(f"{'total':<{first + second}}{len(counted)} runs{once}")


def _width(texts: Iterable[str]) -> int:
    """Width of a column with a gap of two behind it."""
    return 2 + max(len(text) for text in (*texts, "total"))


def _same(run: RunConfig, trained: RunConfig) -> str:
    return "" if trained.key == run.key else f" (the same network as {trained.key})"


def print_estimate(
    chosen: Plan, plan: Plan, sizes: Sizes, store: Store, workers: Workers, every_run: bool
) -> None:
    """Prints the runs that each item still needs, and their time; shared runs count once.

    Args:
        chosen: the runs of this command, a part of ``plan``, which has every run of its items.
    """
    from maskedconv.runs.estimate import estimate, total_seconds

    loaded = store.load()
    configs = all_runs(chosen)
    trained = trained_runs(store, chosen, plan, loaded)
    needed = unique(trained[run.key] for run in configs)
    pending = unfinished(needed, store, loaded)
    say("timing some batches of each kind of run ...")
    seconds = estimate(pending, sizes, workers)
    tell_untimed(pending)
    # Parallel runs were also timed in parallel, on the same GPU.
    speed_up = workers.count
    if speed_up > 1:
        say(f"the times of the items assume {speed_up} runs at once")
    counted: set[str] = set()
    first = _width(experiment.id for experiment in chosen.runs)
    print(f"{'':{first}}{'runs':>6}{'to do':>7}{'epochs':>8}{'images':>14}  time")
    for experiment, runs in chosen.runs.items():
        of_item = unique(trained[run.key] for run in runs)
        mine = [run for run in of_item if run.key in seconds and run.key not in counted]
        counted |= {run.key for run in mine}
        took = sum(seconds[run.key] for run in mine) / speed_up
        print(f"{experiment.id:{first}}{len(runs):6}{_amount(mine, sizes, took)}")
        if every_run:
            for run in mine:
                print(f"  {_amount([run], sizes, seconds[run.key])}  {run.label()}")
    total = total_seconds(pending, seconds, workers.count)
    print(f"{'total':{first}}{len(configs):6}{_amount(pending, sizes, total)}")


def tell_untimed(runs: Iterable[RunConfig]) -> None:
    """Says which estimated times are too short: the timed batches are in memory."""
    names = dict.fromkeys(run.dataset for run in runs if data.describe(run.dataset).streamed)
    if names:
        say(f"note: the times leave out reading and decoding the images of {' and '.join(names)}")


def _amount(runs: list[RunConfig], sizes: Sizes, seconds: float) -> str:
    epochs = sum(run.all_epochs for run in runs)
    images = sum(run.all_epochs * sizes[data_key(run)].train_images for run in runs)
    return f"{len(runs):7}{epochs:8,}{images:14,}  about {duration(seconds)}"
