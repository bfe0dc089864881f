"""Figure 4: BatchNorm's affine parameters learned or left as they start."""

from __future__ import annotations

from pathlib import Path

from maskedconv.report.document import Block, Figure, Picture, Table, Text
from maskedconv.report.drawing import draw, top_of
from maskedconv.report.learned import Mark, learned_panel
from maskedconv.report.results import (
    Setting,
    dataset_title,
    is_reference,
    sentence,
    setting_label,
    setting_order,
)
from maskedconv.report.style import BLUE, ORANGE
from maskedconv.report.tables import (
    best,
    comparison,
    count,
    datasets,
    difference,
    epochs_text,
    file_name,
    networks,
)

_MARKS = (
    Mark(lambda run: not run.bn_learned, "BN fixed", ORANGE, "s", True),
    Mark(lambda run: run.bn_learned, "BN learned", BLUE, "o"),
)
_RESTS = (("random", "the rest random"), ("zero", "the rest zeroed"))


def build(settings: list[Setting], folder: Path) -> list[Block]:
    """Panels and table of each data set, and the authors' runs."""
    blocks: list[Block] = [
        Text(
            "Figure 1's runs of two networks, and the same with BatchNorm's affine parameters left "
            "at 1 and 0; running statistics are updated in both. The dashed line: every weight "
            f"learned, BatchNorm too. Accuracy after {epochs_text(settings)}."
        )
    ]
    for dataset, here in datasets(settings).items():
        top = top_of(here)
        pictures = [
            _picture(folder, dataset, name, group, frozen, top)
            for name, group in networks(here).items()
            for frozen, _ in _RESTS
        ]
        caption = f"{sentence(dataset_title(dataset))}. Accuracy of the best epoch."
        blocks += [Figure(caption, pictures), bn_table(here)]
    return [*blocks, *comparison([s for s in settings if not s.config.bn_learned])]


def _picture(
    folder: Path, dataset: str, name: str, settings: list[Setting], frozen: str, top: float
) -> Picture:
    rest = dict(_RESTS)[frozen]
    chosen = [s for s in settings if s.config.frozen == frozen or is_reference(s.config)]
    values = "; ".join(
        f"{label} {best(learned)} with, {best(fixed)} without"
        for label, learned, fixed in _pairs(chosen)
    )
    alt = f"{name} on {dataset_title(dataset)}, {rest}, accuracy in percent: {values}."
    panel = learned_panel(chosen, top, _MARKS)
    file = file_name("fig4", dataset, name, frozen)
    return draw(folder, file, f"{name}, {rest}", alt, panel)


def _pairs(settings: list[Setting]) -> list[tuple[str, Setting | None, Setting | None]]:
    """Each setting but the reference with BatchNorm learned and with it fixed, by its label."""
    found: dict[str, dict[bool, Setting]] = {}
    for setting in sorted(settings, key=lambda s: setting_order(s.config)):
        if not is_reference(setting.config):
            both = found.setdefault(setting_label(setting.config), {})
            both[setting.config.bn_learned] = setting
    return [(label, both.get(True), both.get(False)) for label, both in found.items()]


def bn_table(settings: list[Setting]) -> Table:
    """Every setting of one data set with BatchNorm learned, fixed, and the difference."""
    rows = []
    for name, group in networks(settings).items():
        for frozen, rest in (("random", "random"), ("zero", "zeroed")):
            chosen = [s for s in group if s.config.frozen == frozen]
            for label, learned, fixed in _pairs(chosen):
                fixed_mean = fixed.best.mean if fixed and fixed.best else None
                rows.append(
                    [
                        name,
                        rest,
                        label,
                        count(learned.learned_parameters if learned else None),
                        count(fixed.learned_parameters if fixed else None),
                        best(learned),
                        best(fixed),
                        difference(learned.best if learned else None, fixed_mean),
                    ]
                )
    return Table(
        f"{sentence(dataset_title(settings[0].config.dataset))}: top-1, %, best epoch",
        (
            "network",
            "rest",
            "learned",
            "parameters, with BN",
            "without",
            "top-1, with BN",
            "without",
            "difference",
        ),
        rows,
        frozenset(range(3, 8)),
        grouped=True,
    )
