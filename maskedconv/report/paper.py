"""What the paper prints and what its authors stored, to set beside our numbers. Top-1 in percent.

Sources: Rosenfeld & Tsotsos 2018 (arXiv 1802.00844), tables 1 to 4 and section 4;
``author_runs.csv`` holds the results stored in the authors' code (GitHub
rosenfeldamir/pytorch-classification, notebooks ``RandomLayers.ipynb`` and
``RandomLayers-Redux_recover.ipynb``).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from maskedconv.report.results import Setting, Stat, family
from maskedconv.runs.config import RunConfig

PARTS = ("bn", "conv1", "block1", "block2", "block3", "fc")

# Table 1: accuracy after 10 epochs of learning one part and every BatchNorm affine parameter.
TABLE1: dict[tuple[str, str], dict[str, float]] = {
    ("densenet_bc_100_12", "cifar10"): dict(
        zip(PARTS, (60.85, 64.76, 73.02, 72.95, 76.33, 68.63), strict=True)
    ),
    ("densenet_bc_100_12", "cifar100"): dict(
        zip(PARTS, (16.06, 15.08, 22.89, 28.00, 31.18, 33.43), strict=True)
    ),
    ("wrn_28_4", "cifar10"): dict(
        zip(PARTS, (30.2, 30.93, 61.19, 76.32, 74.31, 37.03), strict=True)
    ),
    ("wrn_28_4", "cifar100"): dict(
        zip(PARTS, (3.76, 3.67, 12.23, 25.07, 32.35, 10.31), strict=True)
    ),
}

# Table 2: fully trained on CIFAR-10, by fraction learned and what the rest is.
_SPLITS = ((0.1, "random"), (0.1, "zero"), (0.4, "random"), (0.4, "zero"))
TABLE2: dict[str, dict[tuple[float, str], float]] = {
    "wrn_28_10": dict(zip(_SPLITS, (94.12, 91.53, 95.75, 95.49), strict=True)),
    "densenet_bc_100_12": dict(zip(_SPLITS, (88.73, 82.11, 93.33, 92.46), strict=True)),
}
# Section 4: fully trained, one filter in each layer.
ONE_FILTER = {
    ("densenet_bc_100_12", "cifar10"): 85.0,
    ("densenet_bc_100_12", "cifar100"): 59.7,
    ("wrn_28_10", "cifar10"): 69.0,
    ("wrn_28_10", "cifar100"): 34.85,
}
# Table 3: WRN-28-4 on Tiny-ImageNet, by fraction learned: accuracy, and the number of learned
# parameters, which is that of a head of TABLE3_CLASSES classes.
TABLE3 = {
    0.1: (21.75, 829_027),
    0.4: (30.13, 2_588_682),
    0.7: (33.22, 4_339_633),
    1.0: (35.54, 6_103_480),
}
TABLE3_CLASSES = 1000
# Table 4: five DenseNets on CIFAR-10 from one start: mean accuracy, that of the ensemble, and the
# number of learned parameters of all five.
TABLE4 = {
    "FC": (68.5, 70.25, 137_090),
    "share 0.9": (69.9, 71.14, 450_980),
    "share 0.6": (71.0, 73.54, 1_528_505),
    "share 0.3": (71.3, 75.47, 2_664_470),
    "full": (71.7, 76.35, 3_845_810),
}
TABLE4_MEMBERS = 5

MODELS = {
    "alexnet": "alexnet",
    "densenet": "densenet_bc_100_12",
    "vgg19": "vgg19",
    "vgg19_bn": "vgg19_bn",
    "wrn-28-4": "wrn_28_4",
    "wrn-28-10": "wrn_28_10",
}
FULL_EPOCHS = {
    "alexnet": 164,
    "densenet_bc_100_12": 300,
    "vgg19": 164,
    "vgg19_bn": 164,
    "wrn_28_4": 200,
    "wrn_28_10": 200,
}
# Epochs of the experiments that are no full runs.
EPOCHS = {"fig1": 10, "fig2": 1, "fig3": 10, "fig4": 10, "table1": 10, "table4": 1} | {
    name: 45 for name in ("fig6", "table3")
}
# The authors' 1- and 10-epoch runs all started at this learning rate.
SHORT_RUN_LR = 0.1


@dataclass(frozen=True)
class AuthorRun:
    """One result that the authors stored; ``run`` says how long it was trained."""

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
    """One of our settings beside the same run of the authors."""

    setting: Setting
    theirs: AuthorRun
    ours: Stat


@cache
def author_runs() -> tuple[AuthorRun, ...]:
    """Every stored result of the authors."""
    text = (files("maskedconv.report") / "author_runs.csv").read_text(encoding="utf-8")
    return tuple(_author_run(row) for row in csv.DictReader(text.splitlines()))


def same_network(config: RunConfig) -> bool:
    """Whether the run is of one of the paper's networks in its full width, on all the images."""
    width = dict(config.options).get("width", 1)
    return config.model in MODELS.values() and width == 1 and config.subset is None


def epochs(experiment: str, config: RunConfig) -> int:
    """How long the paper trains a run of an experiment; 0 if it has no such network."""
    return EPOCHS.get(experiment) or FULL_EPOCHS.get(config.model, 0)


def comparable(experiment: str, setting: Setting, model: str, dataset: str) -> bool:
    """Whether a setting is of the network, images and epochs of a number that the paper prints."""
    config = setting.config
    return (
        same_network(config)
        and (config.model, config.dataset) == (model, dataset)
        and config.epochs == epochs(experiment, config)
        and setting.whole_data
    )


def full_run(config: RunConfig) -> AuthorRun | None:
    """The authors' full run that comes closest: of the same family and split.

    On CIFAR-100 for runs on it, else on CIFAR-10.
    """
    dataset = "cifar100" if config.dataset == "cifar100" else "cifar10"
    for run in author_runs():
        closest = replace(config, model=run.model, dataset=dataset)
        same_family = family(run.model) == family(config.model)
        if run.run == "full" and same_family and _same_split(closest, run):
            return run
    return None


def compare(settings: list[Setting]) -> list[Comparison]:
    """Our settings that the authors ran too, trained as long: same network, data set and split."""
    found = []
    for setting in settings:
        config = setting.config
        plain = config.optimizer == "sgd" and not config.start
        if not (plain and same_network(config) and setting.whole_data):
            continue
        for theirs in author_runs():
            if _same_split(config, theirs) and (ours := _trained_as_long(setting, theirs)):
                found.append(Comparison(setting, theirs, ours))
    return found


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
    # 1 (one filter) equals 1.0 (all of them) in Python, but is another split.
    return same and isinstance(config.learned, int) == isinstance(theirs.learned, int)


def _trained_as_long(setting: Setting, theirs: AuthorRun) -> Stat | None:
    config = setting.config
    if theirs.run == "full":
        return setting.best if config.epochs == FULL_EPOCHS[config.model] else None
    if config.lr != SHORT_RUN_LR:
        return None
    if theirs.run == "10 epochs":
        return setting.best if config.epochs == 10 else None
    return setting.after(1)
