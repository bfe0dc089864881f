"""Figure 5: full training runs."""

from __future__ import annotations

from pathlib import Path

from maskedconv.report import paper
from maskedconv.report.document import Block, Figure, Table, Text
from maskedconv.report.drawing import draw, top_of
from maskedconv.report.learned import learned_alt, learned_panel, learned_table
from maskedconv.report.results import Setting, dataset_title, sentence, setting_label
from maskedconv.report.tables import (
    NOTHING,
    best,
    comparison,
    datasets,
    epochs_text,
    file_name,
    networks,
    order,
)


def build(settings: list[Setting], folder: Path) -> list[Block]:
    """Panels and table of each data set, beside the authors' stored runs (†)."""
    blocks: list[Block] = [
        Text(
            "Runs of the recipes' whole length in the paper (WRN-28-10 200 epochs, DenseNet 300), "
            f"with the learning rate lowered on the way; here {epochs_text(settings)}, the steps "
            "in proportion. The dashed line: all weights learned, for WRN-28-10 with the authors' "
            "dropout of 0.3. The paper gives the best test epoch; the last one stands beside it. "
            "Its text has 85 / 59.7 % (DenseNet) and 69 / 34.85 % (WRN-28-10) for one filter a "
            "layer, the rest random, on CIFAR-10 / 100."
        )
    ]
    for dataset, here in datasets(settings).items():
        label, top = dataset_title(dataset), top_of(here)
        pictures = [
            draw(
                folder,
                file_name("fig5", dataset, name),
                name,
                learned_alt(name, label, group),
                learned_panel(group, top),
            )
            for name, group in networks(here).items()
        ]
        caption = f"{sentence(label)}. Accuracy of the best epoch."
        blocks += [Figure(caption, pictures), learned_table(here)]
    if paper.compare(settings):
        return [*blocks, *comparison(settings)]
    return [*blocks, _authors_table(settings)]


def _authors_table(settings: list[Setting]) -> Table:
    rows = []
    for setting in sorted(settings, key=order):
        theirs = paper.full_run(setting.config)
        if theirs is None:
            continue
        rows.append(
            [
                f"{theirs.model}, {dataset_title(theirs.dataset)}",
                setting_label(setting.config),
                NOTHING if setting_label(setting.config) == "all" else _REST[theirs.frozen],
                f"{theirs.top1:.2f}",
                best(setting),
                f"{setting.config.model}, {dataset_title(setting.config.dataset)}",
            ]
        )
    return Table(
        "The authors' full runs † (in neither the paper's text nor its tables, but stored with "
        "their code): top-1, %. Not comparable with ours, shown for their order.",
        ("their network", "learned", "rest", "authors †", "ours", "our network"),
        sorted(rows, key=lambda row: row[0]),
        frozenset({3, 4}),
        grouped=True,
    )


_REST = {"random": "random", "zero": "zeroed"}
