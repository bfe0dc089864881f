"""The papers with experiments, one folder each, registered below. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType
from typing import Any

from maskedconv.report.item import Item, Paper
from maskedconv.runs.config import RunConfig
from maskedconv.runs.experiment import Experiment
from maskedconv.runs.planning import Plan
from maskedconv.runs.preset import Preset, Request

_FOLDERS = (
    "rosenfeld2018",
    "frankle2020",
    "ramanujan2019",
    "diffenderfer2021",
    "shen2021",
)  # fmt: skip
PAPERS: tuple[Paper[Any], ...] = tuple(
    import_module(f"{__name__}.{folder}").PAPER for folder in _FOLDERS
)
ITEMS: Mapping[str, Item[Any]] = MappingProxyType(
    {item.id: item for paper in PAPERS for item in paper.items}
)
PRESETS = tuple(dict.fromkeys(name for paper in PAPERS for name in paper.presets))


def select(ids: Iterable[str]) -> list[Item[Any]]:
    """The items with these ids, in the papers' order; empty or "all" selects all.

    Raises:
        ValueError: an id is unknown; the message lists the existing ones.
    """
    wanted = set(ids) or {"all"}
    if unknown := sorted(wanted - set(ITEMS) - {"all"}):
        raise ValueError(
            f"unknown experiment {', '.join(unknown)}; expected {', '.join(ITEMS)} or all"
        )
    return [item for item in ITEMS.values() if item.id in wanted or "all" in wanted]


def make_plan(items: Iterable[Item[Any]], request: Request) -> Plan:
    """The runs of each item under the requested preset.

    Raises:
        ValueError: a paper of these items has no such preset.
    """
    presets = {item: paper.preset(request) for paper, item in _with_papers(items)}
    runs: dict[Experiment[Any], list[RunConfig]] = {
        item: item.runs(preset) for item, preset in presets.items()
    }
    return Plan(runs, _merged(list(presets.values())))


def remarks(items: Iterable[Item[Any]], request: Request) -> list[str]:
    """The papers' remarks on the data of these items."""
    chosen: dict[str, tuple[Paper[Any], list[str]]] = {}
    for paper, item in _with_papers(items):
        chosen.setdefault(paper.title, (paper, []))[1].append(item.id)
    return [
        text for paper, ids in chosen.values() for text in paper.remarks(paper.preset(request), ids)
    ]


def _with_papers(items: Iterable[Item[Any]]) -> list[tuple[Paper[Any], Item[Any]]]:
    found = {item.id: paper for paper in PAPERS for item in paper.items}
    return [(found[item.id], item) for item in items]


def _merged(presets: list[Preset]) -> Preset:
    """A preset with the data sets of all ``presets``."""
    datasets = dict.fromkeys(name for preset in presets for name in preset.datasets)
    return replace(presets[0], datasets=tuple(datasets))
