"""The scales γ of the BatchNorms before and after the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from maskedconv.report.drawing import Draw, legend
from maskedconv.report.results import SeedGroup
from maskedconv.report.style import BLUE, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Scales:
    """Histogram of γ between two bounds, summed over seeds.

    Attributes:
        small: how many have |γ| < .01.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    small: int

    @property
    def fraction_small(self) -> float:
        """The fraction with |γ| < .01."""
        return self.small / max(1, sum(self.counts))


def scales(group: SeedGroup, when: Literal["before", "after"]) -> Scales | None:
    """γ of the finished runs of ``group``; None if no row describes it."""
    rows = [row["norms"] for row in group.rows if "norms" in row]
    if not rows:
        return None
    parts = [row[when] for row in rows]
    counts = tuple(map(sum, zip(*(part["counts"] for part in parts), strict=True)))
    return Scales(rows[0]["low"], rows[0]["high"], counts, sum(part["small"] for part in parts))


def scales_panel(before: Scales, after: Scales) -> Draw:
    """Both histograms as fractions of all γ."""

    def panel(axes: Axes) -> None:
        _steps(axes, before, GREY, "before", fill=True)
        _steps(axes, after, BLUE, "after")
        axes.set_xlabel("γ")
        axes.set_ylabel("fraction of γ, %")
        legend(axes)

    return panel


def _steps(axes: Axes, found: Scales, colour: str, label: str, fill: bool = False) -> None:
    edges = _edges(found)
    heights = [100 * count / max(1, sum(found.counts)) for count in found.counts]
    alpha = 0.35 if fill else 1.0
    axes.stairs(heights, edges, color=colour, label=label, fill=fill, alpha=alpha, lw=1.6)


def _edges(found: Scales) -> Sequence[float]:
    step = (found.high - found.low) / len(found.counts)
    return [found.low + step * place for place in range(len(found.counts) + 1)]
