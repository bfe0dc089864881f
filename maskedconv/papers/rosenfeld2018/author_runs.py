"""Compares our results with those stored in the authors' code. Accuracies are top-1, percent.

Source of ``author_runs.csv``: GitHub rosenfeldamir/pytorch-classification, notebooks
``RandomLayers.ipynb`` and ``RandomLayers-Redux_recover.ipynb``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from maskedconv.papers.rosenfeld2018.printed import FULL_EPOCHS, same_network
from maskedconv.report.document import Block, Table, Text
from maskedconv.report.results import (
    SeedGroup,
    Stat,
    dataset_title,
    family,
    network_label,
    setting_label,
    signed,
)
from maskedconv.runs.config import RunConfig
from maskedconv.slices import SLICE_DIMS

MODELS = {
    "alexnet": "alexnet",
    "densenet": "densenet_bc_100_12",
    "vgg19": "vgg19",
    "vgg19_bn": "vgg19_bn",
    "wrn-28-4": "wrn_28_4",
    "wrn-28-10": "wrn_28_10",
}
# Differences of the authors' code to ours, for the report. docs/results/first-epochs.md has them.
SPLIT_DENSENET = (
    "The authors' split convolutions of DenseNet had PyTorch's initialisation until 19 February "
    "2018, and He's since then; the stored runs do not say which one they had."
)
# bench.last_slices at p = 0.1 and 0.4.
LAST_CHANNELS = (
    "A layer of DenseNet reads the features of all layers before it in order. With the rest of the "
    "input channels zeroed, the first ones give 14 to 15 points more than the last ones "
    "(DenseNet-BC-100-12 on CIFAR-10, one epoch)."
)
# The authors' 1- and 10-epoch runs all started at this learning rate.
SHORT_RUN_LR = 0.1


@dataclass(frozen=True)
class AuthorRun:
    """One result that the authors stored; ``run`` is its length of training."""

    run: str
    model: str
    dataset: str
    learned: float | int
    slice_dim: int
    frozen: str
    bn_learned: bool
    trained: str
    learned_parameters: int
    total_parameters: int
    top1: float


@dataclass(frozen=True)
class Comparison:
    """One of our settings and the same run of the authors."""

    setting: SeedGroup
    theirs: AuthorRun
    ours: Stat


@cache
def author_runs() -> tuple[AuthorRun, ...]:
    """Every stored result of the authors."""
    text = (files("maskedconv.papers.rosenfeld2018") / "author_runs.csv").read_text(
        encoding="utf-8"
    )
    return tuple(_author_run(row) for row in csv.DictReader(text.splitlines()))


def full_run(config: RunConfig) -> AuthorRun | None:
    """The closest full run of the authors: same family and split.

    It is on CIFAR-100 if the run is, else on CIFAR-10.
    """
    dataset = "cifar100" if config.dataset == "cifar100" else "cifar10"
    for run in author_runs():
        closest = replace(config, model=run.model, dataset=dataset)
        same_family = family(run.model) == family(config.model)
        if run.run == "full" and same_family and _same_split(closest, run):
            return run
    return None


def compare(settings: list[SeedGroup], run: str = "") -> list[Comparison]:
    """Our settings with an equal run of the authors: network, data set, split and epochs.

    Args:
        run: the length of the authors' runs, such as ``full``; "" for any.
    """
    found = []
    for setting in settings:
        config = setting.config
        plain = config.optimizer == "sgd" and not config.start
        if not (plain and same_network(config) and setting.whole_data):
            continue
        for theirs in author_runs():
            if run not in ("", theirs.run) or not _same_split(config, theirs):
                continue
            if ours := _trained_as_long(setting, theirs):
                found.append(Comparison(setting, theirs, ours))
    return found


def comparison(settings: list[SeedGroup], run: str = "") -> list[Block]:
    """A table of our settings and the authors' equal runs, or a line if there are none."""
    compared = compare(settings, run)
    if not compared:
        return [
            Text(
                "The authors stored no run with the same network, data set, split and epochs, so "
                "no difference to theirs is given."
            )
        ]
    rows = [
        [
            network_label(pair.setting.config),
            dataset_title(pair.setting.config.dataset),
            f"{setting_label(pair.setting.config)} of {SLICE_DIMS[pair.setting.config.slice_dim]}",
            "zeroed" if pair.theirs.frozen == "zero" else "random",
            pair.theirs.run,
            str(pair.ours),
            f"{pair.theirs.top1:.2f}",
            signed(pair.ours.mean - pair.theirs.top1, 2),
        ]
        for pair in compared
    ]
    columns = ("network", "data", "learned", "rest", "their run", "ours", "authors", "difference")
    return [
        Table(
            "Comparison with the runs stored with the authors' code: top-1, %. Their one-epoch "
            "runs are compared with our first epoch.",
            columns,
            rows,
            frozenset({5, 6, 7}),
            grouped=True,
        )
    ]


def _author_run(row: dict[str, str]) -> AuthorRun:
    learned = row["learned"]
    return AuthorRun(
        run=row["run"],
        model=MODELS[row["architecture"]],
        dataset=row["dataset"],
        learned=1.0 if learned == "all" else float(learned) if "." in learned else int(learned),
        slice_dim=int(row["slice_dim"]),
        frozen=row["frozen"],
        bn_learned=row["bn_learned"] == "True",
        trained=row["trained"],
        learned_parameters=int(row["learned_parameters"]),
        total_parameters=int(row["total_parameters"]),
        top1=float(row["test_accuracy"]),
    )


def _same_split(config: RunConfig, theirs: AuthorRun) -> bool:
    names = ("model", "dataset", "learned", "slice_dim", "frozen", "bn_learned", "trained")
    same = all(getattr(config, name) == getattr(theirs, name) for name in names)
    # 1 (one filter) equals 1.0 (all filters) in Python, but is another split.
    return same and isinstance(config.learned, int) == isinstance(theirs.learned, int)


def _trained_as_long(setting: SeedGroup, theirs: AuthorRun) -> Stat | None:
    config = setting.config
    if theirs.run == "full":
        return setting.best if config.epochs == FULL_EPOCHS[config.model] else None
    if config.lr != SHORT_RUN_LR:
        return None
    if theirs.run == "10 epochs":
        return setting.best if config.epochs == 10 else None
    return setting.after(1)
