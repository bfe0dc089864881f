"""The panels of the report. Each function draws one from settings; accuracies in percent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    Formatter,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from maskedconv.report.document import Picture
from maskedconv.report.files import replace_file
from maskedconv.report.fits import Fit, fit_settings, log_fraction
from maskedconv.report.results import (
    FAMILIES,
    Setting,
    Stat,
    family,
    is_reference,
    setting_label,
    setting_order,
)
from maskedconv.report.style import (
    BLACK,
    DIM_MARKS,
    FAMILY_MARKS,
    FROZEN_COLOURS,
    GREY,
    PANEL,
    figure_style,
)

Draw = Callable[[Axes], None]
# Zeroed first and larger: where both reach the same, the random one lies inside it.
FROZEN_MARKS = (("zero", "rest zeroed", "s"), ("random", "rest random", "o"))


def draw(folder: Path, name: str, title: str, alt: str, panel: Draw) -> Picture:
    """Draws one panel and stores it as ``<name>.svg`` and ``<name>.png`` in ``folder``."""
    with figure_style():
        figure = Figure(figsize=PANEL, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        panel(axes)
        svg, png = BytesIO(), BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    replace_file(folder / f"{name}.svg", svg.getvalue())
    replace_file(folder / f"{name}.png", png.getvalue())
    return Picture(name, alt, svg.getvalue())


def top_of(settings: Iterable[Setting]) -> float:
    """The next ten above the best accuracy, for the panels of one figure to share as their top."""
    best = max((setting.best.mean for setting in settings if setting.best), default=100.0)
    return max(10.0, 10 * math.ceil(best / 10))


def learned_panel(settings: list[Setting], top: float) -> Draw:
    """Figure 1 for one network: accuracy of each setting, random beside zeroed.

    ``top`` ends the accuracy axis, here and below, so that panels of one figure share it.
    """

    def panel(axes: Axes) -> None:
        partial = [s for s in settings if not is_reference(s.config)]
        labels = _ordered_labels(partial)
        by_place = {(setting_label(s.config), s.config.frozen): s.best for s in partial}
        for x, label in enumerate(labels):
            pair = [by_place.get((label, frozen)) for frozen in ("random", "zero")]
            if pair[0] is not None and pair[1] is not None:
                axes.plot([x, x], [pair[0].mean, pair[1].mean], color="#c4c4c4", lw=3, zorder=1)
        places = range(len(labels))
        for frozen, name, marker in FROZEN_MARKS:
            stats = [by_place.get((label, frozen)) for label in labels]
            _points(axes, places, stats, FROZEN_COLOURS[frozen], marker, name, frozen == "zero")
        lost = [x for x, label in enumerate(labels) if _failed(partial, label)]
        if lost:
            low = [0.03 * top] * len(lost)
            axes.scatter(lost, low, color=BLACK, marker="x", s=45, label="a run failed")
        reference = next((s.best for s in settings if is_reference(s.config) and s.best), None)
        if reference is not None:
            axes.axhline(reference.mean, color=BLACK, ls="--", lw=1.2, label="all weights")
        axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.6, len(labels) - 0.4)
        _accuracy_axis(axes, settings, top)
        _legend(axes, columns=3 if lost else 4)

    return panel


def slice_panel(settings: list[Setting], top: float) -> Draw:
    """Figure 2 for one kind of frozen weights: accuracy by setting and slice dimension."""

    def panel(axes: Axes) -> None:
        labels = _ordered_labels(settings)
        names = {0: "filters (0)", 1: "input channels (1)", 2: "rows (2)", 3: "columns (3)"}
        for dim, (colour, marker) in DIM_MARKS.items():
            by_label = {setting_label(s.config): s for s in settings if s.config.slice_dim == dim}
            stats = [by_label[label].best if label in by_label else None for label in labels]
            xs = [x + 0.16 * (dim - 1.5) for x in range(len(labels))]
            _points(axes, xs, stats, colour, marker, names[dim])
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        _accuracy_axis(axes, settings, top)
        _legend(axes, columns=3)

    return panel


def learned_parameters_panel(networks: list[list[Setting]], top: float) -> Draw:
    """Figure 3: accuracy against learned parameters on a log axis, zeroed settings hatched."""

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
        _log_axis(axes, "learned parameters", EngFormatter(sep=""))
        axes.scatter(
            [], [], s=58, facecolor="white", edgecolor=GREY, hatch="//////", label="rest zeroed"
        )
        _accuracy_axis(axes, [s for settings in networks for s in settings], top)
        _legend(axes, columns=3)

    return panel


def fits_panel(networks: list[list[Setting]], top: float) -> Draw:
    """Figure 3's lines: accuracy against the fraction learned, the rest random."""

    def panel(axes: Axes) -> None:
        for settings in networks:
            random = [s for s in settings if s.config.frozen == "random"]
            name = family(settings[0].config.model)
            colour, marker = FAMILY_MARKS[name]
            known = [(log_fraction(s), s.best) for s in random if not is_reference(s.config)]
            points = [(10**x, best.mean) for x, best in known if x is not None and best]
            if not points:
                continue
            label = FAMILIES.get(name, settings[0].config.model)
            xs, ys = zip(*points, strict=True)
            axes.scatter(xs, ys, s=40, color=colour, marker=marker, label=label)
            if fit := fit_settings(random):
                _line(axes, fit, xs, colour)
        _log_axis(axes, "learned, % of all parameters", FuncFormatter(_percent))
        _accuracy_axis(axes, [s for settings in networks for s in settings], top)
        _legend(axes, columns=3)

    return panel


def parts_panel(columns: list[tuple[str, list[Setting]]], parts: Sequence[str], top: float) -> Draw:
    """Table 1 as dots: accuracy of each learned part, one kind of mark for each network."""

    def panel(axes: Axes) -> None:
        for place, (name, settings) in enumerate(columns):
            colour, marker = FAMILY_MARKS[family(settings[0].config.model)]
            by_part = {s.config.trained: s.best for s in settings}
            xs = [x + 0.18 * (place - (len(columns) - 1) / 2) for x in range(len(parts))]
            _points(axes, xs, [by_part.get(part) for part in parts], colour, marker, name)
        labels = ["BN" if part == "bn" else part for part in parts]
        axes.set_xticks(range(len(parts)), labels)
        axes.set_xlim(-0.6, len(parts) - 0.4)
        _accuracy_axis(axes, [s for _, settings in columns for s in settings], top)
        _legend(axes)

    return panel


def curves_panel(settings: list[Setting], top: float) -> Draw:
    """Test accuracy by epoch, darker where more is learned; dashed where the rest is zeroed."""

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
        _accuracy_axis(axes, settings, top)
        _legend(axes, columns=4)

    return panel


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _ordered_labels(settings: Iterable[Setting]) -> list[str]:
    ordered = sorted(settings, key=lambda setting: setting_order(setting.config))
    return list(dict.fromkeys(setting_label(setting.config) for setting in ordered))


def _points(
    axes: Axes,
    xs: Iterable[float],
    stats: Sequence[Stat | None],
    colour: str,
    marker: str,
    label: str,
    hollow: bool = False,
) -> None:
    there = [(x, stat) for x, stat in zip(xs, stats, strict=True) if stat is not None]
    axes.errorbar(
        [x for x, _ in there],
        [stat.mean for _, stat in there],
        yerr=[stat.sd or 0 for _, stat in there] if any(stat.sd for _, stat in there) else None,
        fmt=marker,
        ms=8 if hollow else 6,
        color=colour,
        mfc="white" if hollow else colour,
        mew=1.6,
        elinewidth=1.3,
        label=label,
    )


def _line(axes: Axes, fit: Fit, xs: Sequence[float], colour: str) -> None:
    ends = [min(xs), max(xs)]
    ys = [fit.intercept + fit.slope * math.log10(x) for x in ends]
    axes.plot(ends, ys, color=colour, lw=1.4)


def _failed(settings: Iterable[Setting], label: str) -> bool:
    return any(s.failures for s in settings if setting_label(s.config) == label)


def _percent(fraction: float, _place: int | None) -> str:
    return f"{100 * fraction:g}"


def _log_axis(axes: Axes, label: str, formatter: Formatter) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(formatter)


def _accuracy_axis(axes: Axes, settings: Sequence[Setting], top: float) -> None:
    axes.set_ylabel("test top-1, %")
    axes.set_ylim(0, 1.03 * top)
    chance = settings[0].chance if settings else None
    if chance is not None:
        axes.axhline(chance, color=GREY, ls=":", lw=1.2, label="chance", zorder=0)


def _legend(axes: Axes, columns: int = 4) -> None:
    """Under the panel, where it hides no point."""
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
