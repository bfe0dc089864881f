"""The rows of a plan for the report, grouped by configuration: a group differs only in the seed.

All accuracies are top-1 on the test images, in percent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from maskedconv import data
from maskedconv.runs.config import RunConfig
from maskedconv.runs.parts import SLICE, options_text
from maskedconv.runs.row import EpochRow, InferenceBytes, Row

if TYPE_CHECKING:
    from maskedconv.report.item import Item, Paper

FAMILIES = {
    "densenet": "DenseNet",
    "wrn": "WRN",
    "vgg19_bn": "VGG-19-BN",
    "vgg19": "VGG-19",
    "alexnet": "AlexNet",
}

_PRECISIONS = {"off": "float32", "bf16": "bfloat16 (autocast)"}
# Formats of maskedconv.data's notes on a folder with part of a data set.
_TEST_IMAGES = re.compile(r"([\d,]+) of [\d,]+ test images")
_EXCERPT = re.compile(r"[\d,]+ of [\d,]+ (training|test) images")


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation over seeds; ``sd`` is None for a single seed."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Stat | None:
        """Statistics of ``values``; None if there are none."""
        numbers = list(values)
        if not numbers:
            return None
        sd = stdev(numbers) if len(numbers) > 1 else None
        return cls(fmean(numbers), sd, len(numbers))

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.sd is None else f"{self.mean:.2f} ± {self.sd:.2f}"


@dataclass(frozen=True)
class Run:
    """One planned run and its row, or None if it was not run.

    Attributes:
        trained: key of the run that was trained for it: its own key, or the key of a run that
            learns the same slices of the same network.
    """

    config: RunConfig
    row: Row | None
    trained: str

    @property
    def done(self) -> bool:
        return self.row is not None and self.row["status"] == "done"

    @property
    def failed(self) -> bool:
        return self.row is not None and self.row["status"] == "failed"

    @property
    def history(self) -> list[EpochRow]:
        return [] if self.row is None else self.row.get("history") or []

    @property
    def error(self) -> str:
        return (self.row and self.row.get("error")) or "no reason stored"

    @property
    def diverged(self) -> bool:
        return self.row is not None and self.row.get("error_type") == "Diverged"

    @property
    def seconds(self) -> float:
        """Wall time; 0 if it was not run."""
        return (self.row and self.row.get("seconds")) or 0.0


@dataclass(frozen=True)
class SeedGroup:
    """The runs of one configuration; they differ only in their seed.

    Attributes:
        pooled_sd: ``measured.pooled_sd`` of the results that the group belongs to.
        planned_note: the plan's note on the data, which counts until a run is finished.
    """

    runs: tuple[Run, ...]
    pooled_sd: float | None = None
    planned_note: str = ""

    @property
    def config(self) -> RunConfig:
        return self.runs[0].config

    @property
    def best(self) -> Stat | None:
        """Accuracy of each run's best test epoch, as the paper reports it."""
        return self._stat(lambda row: row["best_top1"])

    @property
    def last(self) -> Stat | None:
        """Accuracy after the last epoch."""
        return self._stat(lambda row: row["last_top1"])

    @property
    def ensemble(self) -> Stat | None:
        """Accuracy of the members' averaged softmax; None for single networks."""
        return self._stat(lambda row: row.get("ensemble_top1"))

    @property
    def rows(self) -> list[Row]:
        """Rows of the finished runs."""
        return [run.row for run in self.runs if run.row is not None and run.done]

    @property
    def whole_data(self) -> bool:
        """Whether the runs use all images of the data set, according to the notes."""
        return self.config.subset is None and not any(map(_EXCERPT.search, self.notes))

    @property
    def test_images(self) -> int | None:
        """The number of test images; None if it is not known."""
        for note in self.notes:
            if found := _TEST_IMAGES.search(note):
                return int(found[1].replace(",", ""))
        return data.describe(self.config.dataset).test_size

    @property
    def independent_tests(self) -> int | None:
        """The number of test examples; translations of one number count as one."""
        related = data.describe(self.config.dataset).related
        return None if self.test_images is None else self.test_images // related

    def after(self, epoch: int) -> Stat | None:
        """Accuracy after the given epoch, counted from 1."""
        return self._stat(
            lambda row: next((e["test_top1"] for e in row["history"] if e["epoch"] == epoch), None)
        )

    @property
    def failures(self) -> list[Run]:
        return [run for run in self.runs if run.failed]

    @property
    def learned_parameters(self) -> int | None:
        return self._first(lambda row: row.get("learned_parameters"))

    @property
    def total_parameters(self) -> int | None:
        return self._first(lambda row: row.get("total_parameters"))

    @property
    def inference_bytes(self) -> InferenceBytes | None:
        """Bytes that inference needs of the network, stored and in memory."""
        found = (run.row.get("inference_bytes") for run in self.runs if run.row is not None)
        return next((sizes for sizes in found if sizes is not None), None)

    def measured(self, name: str) -> Stat | None:
        """A further result of the data set after the last epoch, in percent."""
        return self._stat(lambda row: row.get("measured", {}).get(name))

    @property
    def chance(self) -> float | None:
        """Chance accuracy in percent; None if the number of classes is unknown."""
        classes = data.describe(self.config.dataset).num_classes
        return None if classes is None else 100 / classes

    def _stat(self, value: Callable[[Row], float | None]) -> Stat | None:
        values = [value(row) for row in self.rows]
        return Stat.of(number for number in values if number is not None)

    @property
    def notes(self) -> list[str]:
        """The notes on the data of the finished runs, or else the plan's."""
        return [str(row.get("data_note") or "") for row in self.rows] or [self.planned_note]

    def _first(self, value: Callable[[Row], int | None]) -> int | None:
        """The value of the first row with a value."""
        values = (value(run.row) for run in self.runs if run.row is not None)
        return next((number for number in values if number is not None), None)


@dataclass(frozen=True)
class Results:
    """A plan with its rows.

    Attributes:
        plan: contents of ``plan.json``.
        experiments: seed groups of each planned experiment, by id in the plan's order.
        problems: descriptions of unreadable lines.
        unplanned: number of rows that belong to no planned experiment.
        papers: the papers of the planned experiments.
    """

    plan: dict[str, Any]
    experiments: dict[str, list[SeedGroup]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unplanned: int = 0
    papers: tuple[Paper[Any], ...] = ()

    @property
    def items(self) -> list[Item[Any]]:
        """The planned figures and tables, in the papers' order."""
        return [i for paper in self.papers for i in paper.items if i.id in self.experiments]

    def seed_groups(self, experiment: str) -> list[SeedGroup]:
        """Seed groups of an experiment; empty if it is not in the plan."""
        return self.experiments.get(experiment, [])

    def all_seed_groups(self) -> Iterator[SeedGroup]:
        """Seed groups of every experiment; shared ones appear repeatedly."""
        for settings in self.experiments.values():
            yield from settings

    def asked(self) -> dict[str, Run]:
        """Every planned run, by key."""
        return {run.config.key: run for setting in self.all_seed_groups() for run in setting.runs}

    def runs(self) -> dict[str, Run]:
        """Every trained run, by key; planned runs may share one."""
        found: dict[str, Run] = {}
        for key, run in self.asked().items():
            if run.trained == key or run.trained not in found:
                found[run.trained] = run
        return found

    @property
    def precision(self) -> str:
        """The precision of the runs with a row, as text."""
        configs = [run.config for run in self.runs().values() if run.row]
        used = [_PRECISIONS[config.amp] + ", compiled" * config.compile for config in configs]
        return " and ".join(dict.fromkeys(used))

    def title(self, experiment: str) -> str:
        return str(self.plan["experiments"][experiment].get("title") or experiment)


def family(model: str) -> str:
    """The architecture family of a model, such as ``densenet``; "" for other models."""
    return next((name for name in FAMILIES if model.startswith(name)), "")


def dataset_title(dataset: str) -> str:
    """The display name of a data set."""
    return data.describe(dataset).title


def sentence(text: str) -> str:
    """``text`` with a capital first letter."""
    return text[:1].upper() + text[1:]


def network_label(config: RunConfig) -> str:
    """The name of a run's network, such as ``vgg19 (width 0.125)``."""
    width = dict(config.options).get("width", 1)
    return config.model + (f" (width {width:g})" if width != 1 else "")


def setting_label(config: RunConfig) -> str:
    """The learned part of the network: ``p = 0.1``, ``k = 5``, ``all``, the part's name, or the
    method with its settings.
    """
    parts = " + ".join("BN" if part == "bn" else part for part in config.trained_parts)
    if config.method != SLICE:
        method = " ".join([config.method, options_text(config.method_options)]).rstrip()
        return method if config.trained == "all" else f"{method}, {parts}"
    return split_label(config.learned) if config.trained == "all" else parts


def split_label(learned: float | int) -> str:
    """A fraction or number of slices: ``p = 0.1``, ``k = 5`` or ``all``."""
    if isinstance(learned, int):
        return f"k = {learned}"
    return "all" if learned == 1.0 else f"p = {learned:g}"


def signed(number: float, digits: int = 1) -> str:
    """A difference with its sign: ``+1.5``, ``−0.2`` (U+2212), or ``unknown`` if not finite."""
    if not math.isfinite(number):
        return "unknown"
    return f"{number:+.{digits}f}".replace("-", "−")


def is_reference(config: RunConfig) -> bool:
    """Whether the run learns every weight of the network."""
    return config.trained == "all" and config.learns_all_slices
