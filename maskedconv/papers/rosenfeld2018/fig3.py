"""Figure 3: accuracy against the logarithm of the learned parameters, with linear fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskedconv.papers.rosenfeld2018 import fig1
from maskedconv.papers.rosenfeld2018.criteria import LINEAR_R2, WITH_BN, by_network
from maskedconv.papers.rosenfeld2018.printed import always
from maskedconv.report.claims import Case, Claim
from maskedconv.report.document import Block, Figure, Picture, Table, Text
from maskedconv.report.drawing import Draw, accuracy_axis, draw, legend, log_axis, top_of
from maskedconv.report.fits import Fit, fit_seed_groups, fitted_points
from maskedconv.report.item import Item
from maskedconv.report.measured import NOT_RUN, is_finished
from maskedconv.report.results import (
    FAMILIES,
    SeedGroup,
    dataset_title,
    family,
    is_reference,
    sentence,
    signed,
)
from maskedconv.report.style import FAMILY_MARKS, GREY
from maskedconv.report.tables import datasets, file_name, named, networks, networks_at_any_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """Panels and fitted lines for each data set."""
    blocks: list[Block] = [
        Text(
            "The runs of figure 1 against the number of learned parameters (including BatchNorm "
            "and classifier). Lines are least-squares fits through the settings with a random "
            "rest, without the all-weights reference; a diverged run counts as chance. A network "
            "with runs at two learning rates is drawn at the paper's rate, the higher one."
        )
    ]
    for dataset, here in datasets(settings).items():
        label = dataset_title(dataset)
        drawn = _at_highest_rate(here)
        top = top_of(here)
        blocks += [
            Figure(
                f"{sentence(label)}. Hatched: the rest zeroed.",
                [
                    _fig3_picture(
                        folder, dataset, "parameters", learned_parameters_panel(drawn, top)
                    ),
                    _fig3_picture(folder, dataset, "fits", fits_panel(drawn, top)),
                ],
            ),
            fits_table(label, here),
        ]
    return blocks


def _fig3_picture(folder: Path, dataset: str, name: str, panel: Draw) -> Picture:
    label = dataset_title(dataset)
    title, alt = {
        "parameters": (
            "against learned parameters",
            f"{label}: accuracy of every setting of figure 1 against its learned parameters.",
        ),
        "fits": (
            "against the learned fraction",
            f"{label}: accuracy against the learned fraction, with the lines of the table below.",
        ),
    }[name]
    return draw(folder, file_name("fig3", dataset, name), title, alt, panel)


def _at_highest_rate(settings: list[SeedGroup]) -> list[list[SeedGroup]]:
    return [
        [s for s in group if s.config.lr == max(other.config.lr for other in group)]
        for group in networks_at_any_rate(settings).values()
    ]


def learned_parameters_panel(networks: list[list[SeedGroup]], top: float) -> Draw:
    """Figure 3: accuracy against learned parameters on a log axis; zeroed settings are hatched."""
    from matplotlib.ticker import EngFormatter

    def panel(axes: Axes) -> None:
        for settings in networks:
            colour, marker = FAMILY_MARKS[family(settings[0].config.model)]
            for setting in settings:
                if setting.best is None or not setting.learned_parameters:
                    continue
                zeroed = setting.config.frozen == "zero"
                axes.scatter(
                    setting.learned_parameters,
                    setting.best.mean,
                    s=58,
                    marker=marker,
                    facecolor="white" if zeroed else colour,
                    edgecolor=colour,
                    hatch="//////" if zeroed else None,
                    linewidth=1,
                    zorder=2 if zeroed else 3,
                )
            name = FAMILIES.get(family(settings[0].config.model), settings[0].config.model)
            axes.scatter([], [], s=58, marker=marker, color=colour, label=name)
        log_axis(axes, "learned parameters", EngFormatter(sep=""))
        axes.scatter(
            [], [], s=58, facecolor="white", edgecolor=GREY, hatch="//////", label="rest zeroed"
        )
        accuracy_axis(axes, [s for settings in networks for s in settings], top)
        legend(axes, columns=3)

    return panel


def fits_panel(networks: list[list[SeedGroup]], top: float) -> Draw:
    """Figure 3's lines: accuracy against the learned fraction, with a random rest."""
    from matplotlib.ticker import FuncFormatter

    def panel(axes: Axes) -> None:
        for settings in networks:
            random = [s for s in settings if s.config.frozen == "random"]
            name = family(settings[0].config.model)
            colour, marker = FAMILY_MARKS[name]
            points = [(10**x, top1) for x, top1 in fitted_points(random)]
            if not points:
                continue
            label = FAMILIES.get(name, settings[0].config.model)
            xs, ys = zip(*points, strict=True)
            axes.scatter(xs, ys, s=40, color=colour, marker=marker, label=label)
            if fit := fit_seed_groups(random):
                _line(axes, fit, xs, colour)
        log_axis(axes, "learned, % of all parameters", FuncFormatter(_percent))
        accuracy_axis(axes, [s for settings in networks for s in settings], top)
        legend(axes, columns=3)

    return panel


def _line(axes: Axes, fit: Fit, xs: Sequence[float], colour: str) -> None:
    ends = [min(xs), max(xs)]
    ys = [fit.intercept + fit.slope * math.log10(x) for x in ends]
    axes.plot(ends, ys, color=colour, lw=1.4)


def _percent(fraction: float, _place: int | None) -> str:
    return f"{100 * fraction:g}"


def fits_table(label: str, settings: list[SeedGroup]) -> Table:
    """The fitted lines of one data set."""
    rows = []
    for name, group in networks(settings).items():
        for frozen in ("random", "zero"):
            fit = fit_seed_groups([s for s in group if s.config.frozen == frozen])
            if fit is not None:
                rows.append(
                    [
                        name,
                        "zeroed" if frozen == "zero" else frozen,
                        str(fit.n),
                        signed(fit.slope),
                        f"{signed(fit.low)} to {signed(fit.high)}",
                        f"{fit.r2:.2f}",
                    ]
                )
    return Table(
        f"{sentence(label)}: points of accuracy per tenfold number of learned parameters",
        ("network", "rest", "settings", "slope", "95 % interval", "R²"),
        rows,
        frozenset(range(2, 6)),
        grouped=True,
    )


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """The tables for a README."""
    found = [(dataset_title(name), here) for name, here in datasets(settings).items()]
    return [fits_table(f"figure 3, {label}", here) for label, here in found]


def log_linear(settings: list[SeedGroup]) -> Iterator[Case]:
    for group in by_network(settings, WITH_BN):
        random = [s for s in group if s.config.frozen == "random" and not is_reference(s.config)]
        fit = fit_seed_groups(random)
        if len(random) >= 4 and not all(is_finished(s) for s in random):
            yield Case(named(group[0].config), None, NOT_RUN)
        elif fit is not None and fit.n >= 4:
            yield Case(
                named(group[0].config),
                fit.low > 0 and fit.r2 >= LINEAR_R2,
                f"{signed(fit.slope)} points a tenfold (95 %: {signed(fit.low)} to "
                f"{signed(fit.high)}), R² {fit.r2:.2f}, {fit.n} settings",
            )


CLAIMS = (
    Claim(
        "log-linear",
        "Accuracy grows roughly linearly with the logarithm of the number of learned parameters.",
        "figure 3",
        "Each network with BatchNorm, random frozen filters, at least four settings: the line's "
        f"slope is positive with 95 % confidence and R² is at least {LINEAR_R2:g}. A diverged run "
        "counts as chance.",
        log_linear,
    ),
)


ITEM = Item(
    "fig3",
    "Accuracy against the logarithm of learned parameters",
    "Figure 3",
    fig1.runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=always(10),
)
