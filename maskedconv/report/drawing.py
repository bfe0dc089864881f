"""Draws and stores panels; shared axes, points and legends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maskedconv.io import replace_file
from maskedconv.report.document import Picture
from maskedconv.report.results import SeedGroup, Stat, setting_label
from maskedconv.report.style import GREY, PANEL, figure_style
from maskedconv.report.tables import setting_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter
    from PIL import Image

Draw = Callable[["Axes"], None]

_VISIBLE = 24  # change of a channel, of 255
_PLAIN_PIXELS = 60  # a legend's line has more, the shades at an edge fewer


def draw(folder: Path, name: str, title: str, alt: str, panel: Draw) -> Picture:
    """Draws one panel and stores it as ``<name>.svg`` and ``<name>.png`` in ``folder``."""
    from matplotlib.figure import Figure

    with figure_style():
        figure = Figure(figsize=PANEL, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        panel(axes)
        # Compute the layout once, not for each format.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        svg = BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        png = _small_png(figure)
    replace_file(folder / f"{name}.svg", svg.getvalue())
    replace_file(folder / f"{name}.png", png)
    return Picture(name, alt, svg.getvalue())


def _small_png(figure: Figure) -> bytes:
    """A PNG with a palette of about 32 colours, a quarter of the usual size."""
    from PIL import Image

    drawn, small = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", dpi=160, metadata={"Software": None})
    full = Image.open(drawn).convert("RGB")
    reduced = full.quantize(32, dither=Image.Dither.NONE)
    _restore_plain_colours(full, reduced).save(small, format="png", optimize=True)
    return small.getvalue()


def _restore_plain_colours(full: Image.Image, reduced: Image.Image) -> Image.Image:
    """``reduced`` with additional colours for plain areas that its palette changes visibly.

    The palette may merge colours of few pixels with others, such as a legend's line, or the text
    above coloured images. Shades at the edges of shapes have fewer pixels and do not count.
    """
    import numpy as np

    before, after = np.asarray(full), np.asarray(reduced.convert("RGB"))
    changed = before[np.abs(before.astype(int) - after).max(axis=2) > _VISIBLE]
    colours, counts = np.unique(changed, axis=0, return_counts=True)
    indices = np.array(reduced)
    first = int(indices.max()) + 1
    added = colours[counts >= _PLAIN_PIXELS][: 256 - first]
    for index, colour in enumerate(added, start=first):
        indices[(before == colour).all(axis=2)] = index
    restored = reduced.copy()
    restored.frombytes(indices.tobytes())
    restored.putpalette((reduced.getpalette() or [])[: 3 * first] + added.ravel().tolist())
    return restored


def top_of(settings: Iterable[SeedGroup]) -> float:
    """The multiple of ten above the best accuracy, as the shared limit of a figure's panels."""
    best = max((setting.best.mean for setting in settings if setting.best), default=100.0)
    return max(10.0, 10 * math.ceil(best / 10))


def ordered_labels(settings: Iterable[SeedGroup]) -> list[str]:
    """The settings' labels, each once, in the order of the axis."""
    ordered = sorted(settings, key=lambda setting: setting_order(setting.config))
    return list(dict.fromkeys(setting_label(setting.config) for setting in ordered))


class PointStyle(NamedTuple):
    """Colour, marker and name of one kind of points; hollow points are larger."""

    colour: str
    marker: str
    name: str
    hollow: bool = False


def points(
    axes: Axes, xs: Iterable[float], stats: Sequence[Stat | None], style: PointStyle
) -> None:
    """Draws means with error bars of one standard deviation; skips None."""
    there = [(x, stat) for x, stat in zip(xs, stats, strict=True) if stat is not None]
    axes.errorbar(
        [x for x, _ in there],
        [stat.mean for _, stat in there],
        yerr=[stat.sd or 0 for _, stat in there] if any(stat.sd for _, stat in there) else None,
        fmt=style.marker,
        ms=8 if style.hollow else 6,
        color=style.colour,
        mfc="white" if style.hollow else style.colour,
        mew=1.6,
        elinewidth=1.3,
        label=style.name,
    )


def log_axis(axes: Axes, label: str, formatter: Formatter) -> None:
    """A logarithmic x axis."""
    axes.set_xscale("log")
    axes.set_xlabel(label)
    log_ticks(axes.xaxis, formatter)


def log_ticks(axis: Axis, formatter: Formatter) -> None:
    """Ticks at 1 and 3 of each decade of a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(formatter)


def accuracy_axis(axes: Axes, settings: Sequence[SeedGroup], top: float) -> None:
    """The y axis of test accuracy from 0, with a line at chance if known."""
    axes.set_ylabel("test top-1, %")
    axes.set_ylim(0, 1.03 * top)
    chance = settings[0].chance if settings else None
    if chance is not None:
        axes.axhline(chance, color=GREY, ls=":", lw=1.2, label="chance", zorder=0)


def legend(axes: Axes, columns: int = 4) -> None:
    """Puts the legend under the panel, so that it hides no point."""
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
