"""Figure 4: BatchNorm's affine parameters learned or fixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from maskedconv.papers.rosenfeld2018 import fig1
from maskedconv.papers.rosenfeld2018.author_runs import comparison
from maskedconv.papers.rosenfeld2018.criteria import (
    CLEAR,
    MUCH,
    SMALL,
    by_network,
    learns_little,
    on_average,
)
from maskedconv.papers.rosenfeld2018.presets import RosenfeldPreset
from maskedconv.papers.rosenfeld2018.printed import always
from maskedconv.report import short_tables as short
from maskedconv.report.claims import Case, Claim
from maskedconv.report.document import Block, Figure, Picture, Table, Text
from maskedconv.report.drawing import draw, top_of
from maskedconv.report.item import Item
from maskedconv.report.learned import Mark, learned_panel
from maskedconv.report.measured import (
    Measured,
    accuracy,
    all_of,
    exceeds,
    mean,
    over_common_seeds,
)
from maskedconv.report.results import (
    SeedGroup,
    dataset_title,
    is_reference,
    sentence,
    setting_label,
    signed,
)
from maskedconv.report.style import BLUE, ORANGE
from maskedconv.report.tables import (
    best,
    count,
    datasets,
    difference,
    epochs_text,
    file_name,
    last,
    networks,
    setting_order,
)
from maskedconv.runs.config import RunConfig

_MARKS = (
    Mark(lambda run: not run.bn_learned, "BN fixed", ORANGE, "s", True),
    Mark(lambda run: run.bn_learned, "BN learned", BLUE, "o"),
)
_RESTS = (("random", "the rest random"), ("zero", "the rest zeroed"))


def runs(preset: RosenfeldPreset) -> list[RunConfig]:
    """Figure 1's runs of two networks, and, except the reference, the same with BatchNorm fixed."""
    models = (preset.densenet.model, preset.wrn.model)
    with_bn = [run for run in fig1.runs(preset) if run.model in models]
    without_bn = [replace(run, bn_learned=False) for run in with_bn if not run.learns_all_slices]
    return [*with_bn, *without_bn]


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """Panels and a table for each data set, and the authors' runs."""
    blocks: list[Block] = [
        Text(
            "Figure 1's runs of two networks, and the same runs with BatchNorm's affine parameters "
            "fixed at 1 and 0. Both update running statistics. The dashed line is the all-weights "
            f"reference with learned BatchNorm. Accuracy after {epochs_text(settings)}."
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
    folder: Path, dataset: str, name: str, settings: list[SeedGroup], frozen: str, top: float
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


def _pairs(settings: list[SeedGroup]) -> list[tuple[str, SeedGroup | None, SeedGroup | None]]:
    """Each setting except the reference, with BatchNorm learned and fixed, and its label."""
    found: dict[str, dict[bool, SeedGroup]] = {}
    for setting in sorted(settings, key=lambda s: setting_order(s.config)):
        if not is_reference(setting.config):
            both = found.setdefault(setting_label(setting.config), {})
            both[setting.config.bn_learned] = setting
    return [(label, both.get(True), both.get(False)) for label, both in found.items()]


def bn_table(settings: list[SeedGroup]) -> Table:
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
                        last(learned),
                        last(fixed),
                    ]
                )
    return Table(
        f"{sentence(dataset_title(settings[0].config.dataset))}: top-1, %",
        (
            "network",
            "rest",
            "learned",
            "parameters, with BN",
            "without",
            "best, with BN",
            "without",
            "difference",
            "last, with BN",
            "without",
        ),
        rows,
        frozenset(range(3, 10)),
        grouped=True,
    )


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """The tables for a README."""

    def with_without(found: list[SeedGroup]) -> str:
        by_bn = {setting.config.bn_learned: setting for setting in found}
        return f"{short.one(by_bn.get(True))} / {short.one(by_bn.get(False))}"

    return [
        short.pivot(
            f"Figure 4, {name}, {dataset_title(dataset)}: BatchNorm learned / fixed",
            short.ordered(s for s in group if not is_reference(s.config)),
            lambda setting: "zeroed" if setting.config.frozen == "zero" else "random",
            short.label,
            with_without,
        )
        for dataset, here in datasets(settings).items()
        for name, group in networks(here).items()
    ]


def bn_helps(settings: list[SeedGroup]) -> Iterator[Case]:
    for group in by_network(settings, ("densenet", "wrn")):
        few = _gains([s for s in group if learns_little(s.config)])
        fractions = {s.config.learned for s in group if MUCH <= s.config.learned < 1}
        many = {p: gains for p in fractions if (gains := _gains(_learning(p, group)))}
        if few and many:
            largest = max(many)
            same = over_common_seeds(*few.values(), *many[largest].values())
            little, more = same[: len(few)], mean(same[len(few) :])
            case = on_average(group[0], dict(zip(few, little, strict=True)))
            yield Case(
                case.name,
                all_of(case.holds, exceeds(mean(little) - more)),
                f"{case.evidence}; at p = {largest:g} {signed(more.value)}",
            )


def _learning(fraction: float, settings: list[SeedGroup]) -> list[SeedGroup]:
    return [setting for setting in settings if setting.config.learned == fraction]


def _gains(settings: list[SeedGroup]) -> dict[str, Measured]:
    """BatchNorm learned minus fixed, in points, for every setting that was run both ways."""
    found: dict[str, dict[bool, Measured]] = {}
    for setting in settings:
        config, top1 = setting.config, accuracy(setting)
        if top1 is not None:
            rest = "zeroed" if config.frozen == "zero" else config.frozen
            name = f"{setting_label(config)} {rest}"
            found.setdefault(name, {})[config.bn_learned] = top1
    return {name: top1[True] - top1[False] for name, top1 in found.items() if len(top1) == 2}


CLAIMS = (
    Claim(
        "bn-helps",
        "Learning BatchNorm's affine parameters adds accuracy, most if few filters are learned.",
        "figure 4",
        f"Settings with p ≤ {SMALL:g} or a number of filters: with minus without is at least "
        f"{CLEAR:g} points on average, and more than at the largest fraction run ({MUCH:g} or "
        "more).",
        bn_helps,
    ),
)


ITEM = Item(
    "fig4",
    "BatchNorm learned or fixed",
    "Figure 4",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=always(10),
    curves=True,
)
