"""Table 2: random against zeroed weights, fully trained."""

from __future__ import annotations

from pathlib import Path

from maskedconv.report import paper
from maskedconv.report.document import Block, Table, Text
from maskedconv.report.results import (
    Setting,
    dataset_title,
    family,
    is_reference,
    network_label,
    setting_label,
)
from maskedconv.report.tables import best, count, difference, epochs_text, last, order

DATASET = "cifar10"


def build(settings: list[Setting], _folder: Path) -> list[Block]:
    """The table, beside the paper's."""
    blocks: list[Block] = [
        Text(
            "Those of figure 5's runs that the paper prints, and the all-weights reference of the "
            f"authors' stored runs (†). Accuracy of the best of {epochs_text(settings)}."
        )
    ]
    known = [(setting, found) for setting in settings if (found := printed(setting)) is not None]
    captions = (
        (True, "beside the paper's table 2"),
        (
            False,
            "not comparable with the paper's table 2 (200 and 300 epochs), shown for its order",
        ),
    )
    for same, caption in captions:
        chosen = [
            (setting, theirs)
            for setting, theirs in known
            if paper.comparable("table2", setting, theirs[0], DATASET) == same
        ]
        if chosen:
            blocks.append(_table(chosen, same, f"Top-1, %, {caption}"))
    return blocks


def printed(setting: Setting) -> tuple[str, float] | None:
    """The network of the same family in table 2 and its accuracy; the authors' for all weights."""
    config = setting.config
    for model, numbers in paper.TABLE2.items():
        if family(model) == family(config.model):
            if is_reference(config):
                theirs = paper.full_run(config)
                return (model, theirs.top1) if theirs else None
            if isinstance(config.learned, float) and (config.learned, config.frozen) in numbers:
                return model, numbers[config.learned, config.frozen]
    return None


def _table(settings: list[tuple[Setting, tuple[str, float]]], same: bool, caption: str) -> Table:
    rows = []
    for setting, (model, number) in sorted(settings, key=lambda pair: order(pair[0])):
        config = setting.config
        whole = is_reference(config)
        rows.append(
            [
                network_label(config),
                setting_label(config),
                "" if whole else "zeroed" if config.frozen == "zero" else "random",
                count(setting.learned_parameters),
                best(setting),
                last(setting),
                f"{number:.2f}{' †' if whole else ''}",
                difference(setting.best, number) if same else f"{model}, {dataset_title(DATASET)}",
            ]
        )
    columns = ("network", "learned", "rest", "parameters", "best", "last")
    theirs = ("paper", "difference") if same else ("paper (other network)", "of")
    return Table(
        caption,
        (*columns, *theirs),
        sorted(rows, key=lambda row: row[0]),
        frozenset(range(3, 8)) if same else frozenset(range(3, 7)),
        grouped=True,
    )
