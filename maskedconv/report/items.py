"""The paper's figures and tables as sections: ours, and beside it what can be compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from maskedconv.report import figures, paper
from maskedconv.report.document import Block, Figure, Picture, Section, Text
from maskedconv.report.results import (
    Results,
    Setting,
    dataset_title,
    network_label,
    sentence,
    setting_label,
)
from maskedconv.report.tables import (
    best,
    comparable,
    comparison,
    datasets,
    fig1_table,
    fig2_table,
    file_name,
    fits_table,
    networks,
    printed,
    table1_table,
)


def sections(results: Results, folder: Path) -> list[Section]:
    """A section for every planned experiment, in the paper's order; panels go to ``folder``."""
    return [
        Section(name, f"{heading}: {results.title(name)}", build(results.settings(name), folder))
        for name, (heading, build) in ITEMS.items()
        if name in results.experiments
    ]


def _epochs(settings: list[Setting]) -> str:
    numbers = sorted({setting.config.epochs for setting in settings})
    text = " or ".join(str(number) for number in numbers)
    return f"{text} epoch" if numbers == [1] else f"{text} epochs"


def _fig1(settings: list[Setting], folder: Path) -> list[Block]:
    blocks: list[Block] = [
        Text(
            "In every convolution only a part of the filters is learned: a fraction p of them or "
            "a number k. The rest stays random or is zeroed. Accuracy after "
            f"{_epochs(settings)}; BatchNorm and the classifier are learned throughout."
        )
    ]
    for dataset, here in datasets(settings).items():
        label = dataset_title(dataset)
        top = figures.top_of(here)
        pictures = [
            figures.draw(
                folder,
                file_name("fig1", dataset, name),
                name,
                _fig1_alt(name, label, group),
                figures.learned_panel(group, top),
            )
            for name, group in networks(here).items()
        ]
        caption = (
            f"{sentence(label)}. Accuracy of the best epoch; bars are one standard deviation over "
            "seeds, where there are several."
        )
        blocks += [Figure(caption, pictures), fig1_table(here)]
    return [*blocks, *comparison(settings)]


def _fig1_alt(name: str, dataset: str, settings: list[Setting]) -> str:
    values = "; ".join(
        f"{setting_label(s.config)} {s.config.frozen} {best(s)}" for s in settings if s.best
    )
    return f"{name} on {dataset}, accuracy in percent: {values or 'nothing was run'}."


def _fig2(settings: list[Setting], folder: Path) -> list[Block]:
    blocks: list[Block] = [
        Text(
            "What is learned of a filter bank can be a slice of any of its four dimensions: output "
            "filters (0), input channels (1), kernel rows (2) or columns (3). Rows and columns of "
            "a 1×1 kernel are learned whole, so p and k stand for more parameters there; "
            "k beyond a kernel's size learns all of it. Accuracy after "
            f"{_epochs(settings)}."
        )
    ]
    for dataset, here in datasets(settings).items():
        top = figures.top_of(here)
        for name, group in networks(here).items():
            where = f"{name} on {dataset_title(dataset)}"
            pictures = []
            for frozen, title in (("random", "the rest random"), ("zero", "the rest zeroed")):
                chosen = [s for s in group if s.config.frozen == frozen]
                if chosen:
                    pictures.append(
                        figures.draw(
                            folder,
                            file_name("fig2", dataset, name, frozen),
                            title,
                            f"{where}, {title}: accuracy by slice dimension, as in the table.",
                            figures.slice_panel(chosen, top),
                        )
                    )
            blocks += [Figure(f"{where}. Accuracy of the best epoch.", pictures), fig2_table(group)]
    return [*blocks, *comparison(settings)]


def _fig3(settings: list[Setting], folder: Path) -> list[Block]:
    blocks: list[Block] = [
        Text(
            "The runs of figure 1 again, against how many parameters are learned (BatchNorm and "
            "classifier included). Lines are least-squares fits through the settings whose rest is "
            "random, without the all-weights reference. A network run at two learning rates is "
            "drawn at the paper's, the higher one."
        )
    ]
    for dataset, here in datasets(settings).items():
        label = dataset_title(dataset)
        drawn = _at_highest_rate(here)
        top = figures.top_of(here)
        blocks += [
            Figure(
                f"{sentence(label)}. Hatched: the rest zeroed.",
                [
                    _fig3_picture(
                        folder, dataset, "parameters", figures.learned_parameters_panel(drawn, top)
                    ),
                    _fig3_picture(folder, dataset, "fits", figures.fits_panel(drawn, top)),
                ],
            ),
            fits_table(label, here),
        ]
    return blocks


def _fig3_picture(folder: Path, dataset: str, name: str, panel: figures.Draw) -> Picture:
    label = dataset_title(dataset)
    title, alt = {
        "parameters": (
            "against learned parameters",
            f"{label}: accuracy of every setting of figure 1 against its learned parameters.",
        ),
        "fits": (
            "against the fraction, with fits",
            f"{label}: accuracy against the fraction learned, with the lines of the table below.",
        ),
    }[name]
    return figures.draw(folder, file_name("fig3", dataset, name), title, alt, panel)


def _at_highest_rate(settings: list[Setting]) -> list[list[Setting]]:
    by_network: dict[str, list[Setting]] = {}
    for setting in settings:
        by_network.setdefault(network_label(setting.config), []).append(setting)
    return [
        [s for s in group if s.config.lr == max(other.config.lr for other in group)]
        for group in by_network.values()
    ]


def _table1(settings: list[Setting], folder: Path) -> list[Block]:
    blocks: list[Block] = [
        Text(
            "Only one part of the network is learned, together with BatchNorm's affine parameters; "
            f"everything else stays at its random start. Accuracy after {_epochs(settings)}."
        )
    ]
    pictures = []
    for dataset, here in datasets(settings).items():
        label = dataset_title(dataset)
        columns = list(networks(here).items())
        panel = figures.parts_panel(columns, paper.PARTS, figures.top_of(here))
        alt = f"{label}: accuracy of every learned part, as in the table."
        pictures.append(figures.draw(folder, file_name("table1", dataset), label, alt, panel))
    blocks.append(Figure("Accuracy of the best epoch.", pictures))
    known = [setting for setting in settings if printed(setting) is not None]
    captions = (
        (True, "beside the paper's table 1"),
        (False, "not comparable with the paper's table 1 (10 epochs), shown for its order"),
    )
    for same, caption in captions:
        chosen = [s for s in known if comparable(s) == same]
        if chosen:
            blocks.append(table1_table(chosen, same, f"Top-1, %, {caption}"))
    return blocks


Build = Callable[[list[Setting], Path], list[Block]]
ITEMS: dict[str, tuple[str, Build]] = {
    "fig1": ("Figure 1", _fig1),
    "fig2": ("Figure 2", _fig2),
    "fig3": ("Figure 3", _fig3),
    "table1": ("Table 1", _table1),
}
