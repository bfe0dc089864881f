"""``python -m maskedconv.train``: one training run, configured on the command line.

Under torchrun, several processes execute it together.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskedconv import data
from maskedconv.checks import check_number
from maskedconv.cli import typer
from maskedconv.cli.one_run import OneRun
from maskedconv.cli.options import (
    AMP_HELP,
    COMPILE_HELP,
    GRAPH_HELP,
    SOME_FAILED,
    check_device,
    open_amp,
    open_graph,
    parse_learned,
    parse_option,
    usage_errors,
)
from maskedconv.console import duration, say
from maskedconv.optim import OPTIMIZERS
from maskedconv.runs import RunConfig, Store
from maskedconv.runs.experiment import fields_of_recipe
from maskedconv.runs.images import SUBSET_SEED, DataLocations
from maskedconv.runs.parts import INITS, SLICE, TRAINED
from maskedconv.runs.planning import check_same_data
from maskedconv.runs.row import Row
from maskedconv.runs.sequential import CHECKPOINT_SECONDS
from maskedconv.slices import FROZEN_MODES
from maskedconv.training.compiled import check_compile
from maskedconv.training.device import open_device
from maskedconv.training.torchrun import joined

if TYPE_CHECKING:
    from maskedconv.data import Task


def main(
    model: Annotated[str, typer.Option(help="Such as wrn_28_4; see maskedconv.models.")],
    dataset: Annotated[str, typer.Option(help=f"{', '.join(data.available())}.")] = "digits",
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the images.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch CIFAR or MNIST.")] = False,
    learned: Annotated[
        str, typer.Option(help="0.1 is a tenth of every layer's filters, 1 one filter, 1.0 all.")
    ] = "1.0",
    slice_dim: Annotated[
        int, typer.Option(help="0 filters, 1 input channels, 2 kernel rows, 3 kernel columns.")
    ] = 0,
    frozen: Annotated[str, typer.Option(help=f"{', '.join(FROZEN_MODES)}.")] = "random",
    method: Annotated[
        str, typer.Option(help="Name of a method, such as supermask; see maskedconv.methods.")
    ] = SLICE,
    method_option: Annotated[
        list[str] | None,
        typer.Option(help="A setting of another method, such as count=100; may be repeated."),
    ] = None,
    trained: Annotated[
        str, typer.Option(help=f"{', '.join(TRAINED)}, or several joined by +.")
    ] = "all",
    bn_learned: Annotated[
        bool, typer.Option("--bn-learned/--bn-fixed", help="BatchNorm's affine parameters.")
    ] = True,
    init: Annotated[str, typer.Option(help=f"{', '.join(INITS)}.")] = "he",
    optimizer: Annotated[
        str | None, typer.Option(help=f"{', '.join(OPTIMIZERS)}; by default the recipe's.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="By default the recipe's, a full run.")] = None,
    scale_schedule: Annotated[
        bool,
        typer.Option(
            "--scale-schedule", help="Scale the recipe's milestones and warm-up to --epochs."
        ),
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Of all processes together; by default the recipe's.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="By default the recipe's.")] = None,
    momentum: Annotated[
        float | None,
        typer.Option(help="By default the recipe's; with another --optimizer 0.9, yellowfin 0."),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="By default the recipe's.")] = None,
    dropout: Annotated[float, typer.Option(help="Of wrn.")] = 0.0,
    subset: Annotated[int | None, typer.Option(help="Training images per class.")] = None,
    test_subset: Annotated[int | None, typer.Option(help="Test images per class.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Another option of the model, such as width=0.125; may be repeated."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    amp: Annotated[str, typer.Option(help=AMP_HELP)] = "auto",
    graph: Annotated[str, typer.Option(help=GRAPH_HELP)] = "auto",
    compile: Annotated[bool, typer.Option("--compile", help=COMPILE_HELP)] = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder with a results.jsonl, to which the run is added.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Store the final weights in the folder, too.")
    ] = False,
    checkpoint_minutes: Annotated[
        float | None,
        typer.Option(help="Minutes between two checkpoints in the folder.", show_default="2.0"),
    ] = None,
) -> None:
    """Train one network that learns only a part of its weights.

    Under torchrun, all processes train it together, each a part of every batch: torchrun
    --nproc-per-node 2 -m maskedconv.train ...

    Exit status: 0 done, 1 the run failed, 2 usage or missing data, 130 interrupted.
    """
    with joined() as ours:
        with usage_errors(ours.tell_error):
            check_device(device, threads)
            minutes = _check_out(out, keep, checkpoint_minutes)
            fraction = parse_learned(learned)
            options = tuple(parse_option(text) for text in option or ())
            locations = DataLocations({} if data_dir is None else {"": data_dir}, download)
            data.check(dataset, data_dir, download, subset)
            torch_device = open_device(device, threads, ours)
            config = RunConfig(
                **fields_of_recipe(
                    model,
                    scale_schedule,
                    epochs=epochs,
                    batch_size=batch_size,
                    lr=lr,
                    momentum=momentum,
                    weight_decay=weight_decay,
                    optimizer=optimizer,
                ),
                model=model,
                dataset=dataset,
                learned=fraction,
                slice_dim=slice_dim,
                frozen=frozen,
                method=method,
                method_options=tuple(parse_option(text) for text in method_option or ()),
                trained=trained,
                bn_learned=bn_learned,
                init=init,
                keep=keep,
                dropout=dropout,
                subset=subset,
                test_subset=test_subset,
                seed=seed,
                options=options,
                amp=open_amp(amp, torch_device),
                compile=compile,
                processes=ours.count,
            )
            open_graph(graph, torch_device, [config.optimizer], ours.count)
            check_compile(compile, torch_device.type)
            store = None if out is None else Store(out)
            if store is not None and not ours.rank:
                store.prepare()
            images = ours.in_turn(lambda: locations.load((dataset, subset), torch_device))
            if store is not None and not ours.rank:
                loaded = store.load()
                for problem in loaded.problems:
                    say(f"note: {problem}")
                check_same_data(store, loaded, {(dataset, subset): images})
            if test_subset is not None:
                images = images.take_test(test_subset, SUBSET_SEED)
            images = images.shared(ours.share)
            has_norms = _check_model(config, images)
        _say_what_is_not_obvious(config, store, scale_schedule, has_norms)
        run = OneRun(config, images, store, 60 * minutes, graph, ours)
        if ours.rank:
            run.follow()
        else:
            _print_result(run.execute(), store)


def _check_out(out: Path | None, keep: bool, checkpoint_minutes: float | None) -> float:
    """Minutes between two checkpoints; ValueError for options that need ``--out``."""
    if keep and out is None:
        raise ValueError("keep is True; expected --out FOLDER for the weights")
    if checkpoint_minutes is None:
        return CHECKPOINT_SECONDS / 60
    if out is None:
        raise ValueError(
            f"checkpoint_minutes is {checkpoint_minutes}; expected --out FOLDER for checkpoints"
        )
    return check_number("checkpoint_minutes", checkpoint_minutes)


def _print_result(row: Row, store: Store | None) -> None:
    """Prints the accuracy and size of a finished run; a failed one ends the command."""
    if row["status"] == "failed":
        say(f"error: {row['error']}")
        raise typer.Exit(SOME_FAILED)
    best = f"best {row['best_top1']:.2f} % in epoch {row['best_epoch']}"
    print(
        f"last {row['last_top1']:.2f} %, {best}, "
        f"{row['learned_parameters']:,} of {row['total_parameters']:,} parameters learned, "
        f"{duration(row['seconds'] or 0.0)}",
        flush=True,
    )
    if store is not None and "weights" in row:
        print(f"weights: {store.out / row['weights']}")


def _check_model(config: RunConfig, images: Task) -> bool:
    """Whether the network has BatchNorms.

    Raises errors in the network's arguments before the run, as usage errors.
    """
    from maskedconv.runs.execute import build_model
    from maskedconv.training.running_statistics import running_statistics

    return bool(running_statistics(build_model(config, images.num_classes, images.image_shape)))


def _say_what_is_not_obvious(
    config: RunConfig, store: Store | None, scaled: bool, has_norms: bool
) -> None:
    if config.processes > 1 and has_norms:
        say(
            "note: each process computes BatchNorm's statistics of its own part of each batch, so "
            "that the result differs from that of one process"
        )
    if not config.keep:
        how = "--keep" if store is not None else "--out FOLDER --keep"
        say(f"note: the final weights will not be stored; {how} stores them")
    late = [epoch for epoch in config.milestones if epoch >= config.epochs]
    if late and not scaled:
        epochs = ", ".join(map(str, late))
        say(
            f"note: the recipe lowers the learning rate after epoch {epochs}; this run has only "
            f"{config.epochs}; --scale-schedule scales the recipe's schedule to it"
        )


if __name__ == "__main__":
    typer.run(main)
