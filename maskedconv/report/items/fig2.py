"""Figure 2: which dimension of the filter banks is sliced."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from maskedconv.report import paper
from maskedconv.report.document import Block, Figure, Table, Text
from maskedconv.report.drawing import (
    Draw,
    accuracy_axis,
    draw,
    legend,
    ordered_labels,
    points,
    top_of,
)
from maskedconv.report.results import Setting, dataset_title, setting_label
from maskedconv.report.style import DIM_MARKS
from maskedconv.report.tables import (
    NOTHING,
    best,
    comparison,
    count,
    datasets,
    epochs_text,
    file_name,
    networks,
    one_network,
    order,
    pairs,
)
from maskedconv.slices import SLICE_DIMS


def build(settings: list[Setting], folder: Path) -> list[Block]:
    """Panels and table of each network, and the authors' runs."""
    blocks: list[Block] = [
        Text(
            "What is learned of a filter bank can be a slice of any of its four dimensions: output "
            "filters (0), input channels (1), kernel rows (2) or columns (3). Rows and columns of "
            "a 1×1 kernel are learned whole, so p and k stand for more parameters there; "
            "k beyond a kernel's size learns all of it. Accuracy after "
            f"{epochs_text(settings)}."
        )
    ]
    for dataset, here in datasets(settings).items():
        top = top_of(here)
        for name, group in networks(here).items():
            where = f"{name} on {dataset_title(dataset)}"
            pictures = []
            for frozen, title in (("random", "the rest random"), ("zero", "the rest zeroed")):
                chosen = [s for s in group if s.config.frozen == frozen]
                if chosen:
                    pictures.append(
                        draw(
                            folder,
                            file_name("fig2", dataset, name, frozen),
                            title,
                            f"{where}, {title}: accuracy by slice dimension, as in the table.",
                            slice_panel(chosen, top),
                        )
                    )
            blocks += [Figure(f"{where}. Accuracy of the best epoch.", pictures), fig2_table(group)]
    return [*blocks, *one_network(settings), *comparison(settings)]


def slice_panel(settings: list[Setting], top: float) -> Draw:
    """Figure 2 for one kind of frozen weights: accuracy by setting and slice dimension."""

    def panel(axes: Axes) -> None:
        labels = ordered_labels(settings)
        names = {0: "filters (0)", 1: "input channels (1)", 2: "rows (2)", 3: "columns (3)"}
        for dim, (colour, marker) in DIM_MARKS.items():
            by_label = {setting_label(s.config): s for s in settings if s.config.slice_dim == dim}
            stats = [by_label[label].best if label in by_label else None for label in labels]
            xs = [x + 0.16 * (dim - 1.5) for x in range(len(labels))]
            points(axes, xs, stats, colour, marker, names[dim])
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        accuracy_axis(axes, settings, top)
        legend(axes, columns=3)

    return panel


def fig2_table(settings: list[Setting]) -> Table:
    """Every slice of one network, beside what the authors stored for theirs."""
    theirs = {
        (run.learned, isinstance(run.learned, int), run.slice_dim, run.frozen): f"{run.top1:.2f}"
        for run in paper.author_runs()
        if run.run == "1 epoch"
    }
    first = settings[0].config
    same = paper.same_network(first) and first.dataset == "cifar10" and first.epochs == 1
    other = "" if same else " (other network)"
    rows = []
    for random, zero in pairs(sorted(settings, key=order)):
        one = random or zero
        assert one is not None
        config = one.config
        split = (config.learned, isinstance(config.learned, int), config.slice_dim)
        rows.append(
            [
                f"{SLICE_DIMS[config.slice_dim]} ({config.slice_dim})",
                setting_label(config),
                count(one.learned_parameters),
                best(random),
                best(zero),
                theirs.get((*split, "random"), NOTHING),
                theirs.get((*split, "zero"), NOTHING),
            ]
        )
    columns = ["slice", "learned", "parameters", "random", "zeroed"]
    return Table(
        "Top-1, %, best epoch. The authors' numbers: DenseNet-BC-100-12, CIFAR-10, 1 epoch.",
        [*columns, f"authors{other}, random", f"authors{other}, zeroed"],
        rows,
        frozenset(range(2, 7)),
        grouped=True,
    )
