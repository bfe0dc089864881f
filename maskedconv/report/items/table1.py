"""Table 1: only one part of the network is learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from maskedconv.report import paper
from maskedconv.report.document import Block, Figure, Table, Text
from maskedconv.report.drawing import Draw, accuracy_axis, draw, legend, points, top_of
from maskedconv.report.results import (
    Setting,
    dataset_title,
    family,
    network_label,
    setting_label,
)
from maskedconv.report.style import FAMILY_MARKS
from maskedconv.report.tables import (
    best,
    count,
    datasets,
    difference,
    epochs_text,
    file_name,
    last,
    networks,
)


def build(settings: list[Setting], folder: Path) -> list[Block]:
    """Panels and table, beside the paper's."""
    blocks: list[Block] = [
        Text(
            "Only one part of the network is learned, together with BatchNorm's affine parameters; "
            f"everything else stays at its random start. Accuracy after {epochs_text(settings)}."
        )
    ]
    pictures = []
    for dataset, here in datasets(settings).items():
        label = dataset_title(dataset)
        columns = list(networks(here).items())
        panel = parts_panel(columns, paper.PARTS, top_of(here))
        alt = f"{label}: accuracy of every learned part, as in the table."
        pictures.append(draw(folder, file_name("table1", dataset), label, alt, panel))
    blocks.append(Figure("Accuracy of the best epoch.", pictures))
    known = [(setting, found) for setting in settings if (found := printed(setting)) is not None]
    captions = (
        (True, "beside the paper's table 1"),
        (False, "not comparable with the paper's table 1 (10 epochs), shown for its order"),
    )
    for same, caption in captions:
        chosen = [
            setting
            for setting, (model, dataset, _) in known
            if paper.comparable("table1", setting, model, dataset) == same
        ]
        if chosen:
            blocks.append(table1_table(chosen, same, f"Top-1, %, {caption}"))
    return blocks


def parts_panel(columns: list[tuple[str, list[Setting]]], parts: Sequence[str], top: float) -> Draw:
    """Table 1 as dots: accuracy of each learned part, one kind of mark for each network."""

    def panel(axes: Axes) -> None:
        for place, (name, settings) in enumerate(columns):
            colour, marker = FAMILY_MARKS[family(settings[0].config.model)]
            by_part = {s.config.trained: s.best for s in settings}
            xs = [x + 0.18 * (place - (len(columns) - 1) / 2) for x in range(len(parts))]
            points(axes, xs, [by_part.get(part) for part in parts], colour, marker, name)
        labels = ["BN" if part == "bn" else part for part in parts]
        axes.set_xticks(range(len(parts)), labels)
        axes.set_xlim(-0.6, len(parts) - 0.4)
        accuracy_axis(axes, [s for _, settings in columns for s in settings], top)
        legend(axes)

    return panel


def printed(setting: Setting) -> tuple[str, str, float] | None:
    """Model, data set and accuracy in the paper's table 1 that come closest to a setting."""
    config = setting.config
    dataset = "cifar100" if config.dataset == "cifar100" else "cifar10"
    for (model, data), numbers in paper.TABLE1.items():
        if family(model) == family(config.model) and data == dataset and config.trained in numbers:
            return model, data, numbers[config.trained]
    return None


def table1_table(settings: list[Setting], same: bool, caption: str) -> Table:
    """Learned parts; with the difference to the paper if ``same``, else with what it is of."""
    rows = []
    for setting in settings:
        closest = printed(setting)
        if closest is None:
            continue
        model, dataset, number = closest
        source = f"{model}, {dataset_title(dataset)}"
        rows.append(
            [
                network_label(setting.config),
                dataset_title(setting.config.dataset),
                setting_label(setting.config),
                count(setting.learned_parameters),
                best(setting),
                last(setting),
                f"{number:.2f}",
                difference(setting.best, number) if same else source,
            ]
        )
    columns = ("network", "data", "learned", "parameters", "best", "last")
    theirs = ("paper", "difference") if same else ("paper (other network)", "of")
    return Table(
        caption,
        (*columns, *theirs),
        rows,
        frozenset(range(3, 8)) if same else frozenset({3, 4, 5, 6}),
        grouped=True,
    )
