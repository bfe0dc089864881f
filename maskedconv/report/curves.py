"""Learning curves of every run of at least :data:`LEAST_EPOCHS` epochs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from maskedconv.report.document import Block, Figure, Text
from maskedconv.report.drawing import Draw, accuracy_axis, draw, legend, top_of
from maskedconv.report.results import Results, SeedGroup, dataset_title, setting_label
from maskedconv.report.tables import datasets, file_name, networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LEAST_EPOCHS = 5  # of fewer, a curve shows little more than a table


def build(results: Results, folder: Path) -> list[Block]:
    """A figure for each item and data set; shared runs are drawn once. Empty without figures.

    Planned settings without a run are left out.
    """
    blocks: list[Block] = [
        Text(
            "Test accuracy by epoch. Darker lines learn more; dashed lines have a zeroed rest. One "
            f"line per seed. Runs of fewer than {LEAST_EPOCHS} epochs are left out."
        )
    ]
    drawn: set[str] = set()
    for item in (item for item in results.items if item.curves):
        chosen = [s for s in results.seed_groups(item.id) if s.config.key not in drawn]
        drawn |= {setting.config.key for setting in chosen}
        long = [one for one in chosen if one.config.epochs >= LEAST_EPOCHS and _has_curve(one)]
        for dataset, here in datasets(long).items():
            top, label = top_of(here), dataset_title(dataset)
            pictures = [
                draw(
                    folder,
                    file_name("curves", item.id, dataset, network),
                    network,
                    f"{network} on {label}, {item.reference}: test accuracy by epoch.",
                    curves_panel(group, top),
                )
                for network, group in networks(here).items()
            ]
            blocks.append(Figure(f"{_caption(item.reference, chosen)}, {label}", pictures))
    return blocks if len(blocks) > 1 else []


def _caption(reference: str, settings: list[SeedGroup]) -> str:
    fixed = not any(setting.config.bn_learned for setting in settings)
    return f"{reference}, BatchNorm fixed" if fixed else reference


def curves_panel(settings: list[SeedGroup], top: float) -> Draw:
    """Test accuracy by epoch: darker lines learn more, dashed lines have a zeroed rest."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    def panel(axes: Axes) -> None:
        ordered = sorted(settings, key=lambda s: s.learned_parameters or 0)
        shades = colormaps["viridis_r"]
        labels = list(dict.fromkeys(setting_label(s.config) for s in ordered))
        named = set()
        for setting in ordered:
            label = setting_label(setting.config)
            place = labels.index(label) / max(len(labels) - 1, 1)
            for run in setting.runs:
                axes.plot(
                    [epoch["epoch"] for epoch in run.history],
                    [_number(epoch["test_top1"]) for epoch in run.history],
                    color=shades(0.12 + 0.88 * place),
                    ls="--" if setting.config.frozen == "zero" else "-",
                    lw=1.5,
                    label=None if label in named else label,
                )
                named.add(label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        accuracy_axis(axes, settings, top)
        legend(axes, columns=4)

    return panel


def _has_curve(setting: SeedGroup) -> bool:
    return any(run.history for run in setting.runs)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
