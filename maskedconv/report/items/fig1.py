"""Figure 1: a part of each layer's filters is learned, in every network."""

from __future__ import annotations

from pathlib import Path

from maskedconv.report.document import Block, Figure, Text
from maskedconv.report.drawing import draw, top_of
from maskedconv.report.learned import learned_alt, learned_panel, learned_table
from maskedconv.report.results import Setting, dataset_title, sentence
from maskedconv.report.tables import comparison, datasets, epochs_text, file_name, networks


def build(settings: list[Setting], folder: Path) -> list[Block]:
    """Panels and table of each data set, and the authors' runs."""
    blocks: list[Block] = [
        Text(
            "In every convolution only a part of the filters is learned: a fraction p of them or "
            "a number k. The rest stays random or is zeroed. Accuracy after "
            f"{epochs_text(settings)}; BatchNorm and the classifier are learned throughout. The "
            "paper learns the first filters, the authors' code the last ones; here it is the first."
        ),
        Text(
            "In the authors' code the split convolutions of WRN and VGG started about √6 smaller "
            "than here, where all but AlexNet's start from He's initialisation, unless the "
            "configuration below says otherwise."
        ),
        Text(
            "AlexNet and VGG-19 without BatchNorm hardly train at the paper's learning rate of "
            "0.1; 0.01, that of the authors' reference runs, is shown where it was run."
        ),
    ]
    for dataset, here in datasets(settings).items():
        label = dataset_title(dataset)
        top = top_of(here)
        pictures = [
            draw(
                folder,
                file_name("fig1", dataset, name),
                name,
                learned_alt(name, label, group),
                learned_panel(group, top),
            )
            for name, group in networks(here).items()
        ]
        caption = (
            f"{sentence(label)}. Accuracy of the best epoch; bars are one standard deviation over "
            "seeds, where there are several."
        )
        blocks += [Figure(caption, pictures), learned_table(here)]
    return [*blocks, *comparison(settings)]
