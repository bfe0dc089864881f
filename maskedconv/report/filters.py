"""The filters of a first convolution as images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from maskedconv.report.drawing import Draw
from maskedconv.report.style import BLACK, GREY
from maskedconv.runs.row import FirstLayer

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def filters_panel(first: FirstLayer) -> Draw:
    """The filters ``[O, I, kH, kW]`` of the first convolution as tiles; learned ones are framed."""
    import numpy as np
    from matplotlib.patches import Rectangle

    count, channels, height, width = first["shape"]
    weights = np.asarray(first["values"], float).reshape(first["shape"])
    scale = np.abs(weights).max() or 1.0
    # Without three channels, the mean over channels is shown in grey.
    shown = weights if channels == 3 else weights.mean(1, keepdims=True).repeat(3, axis=1)
    images = (0.5 + 0.5 * shown / scale).clip(0, 1).transpose(0, 2, 3, 1)
    # More columns than rows, because a panel is wider than high.
    columns = math.ceil(math.sqrt(1.9 * count))

    def panel(axes: Axes) -> None:
        for index, image in enumerate(images):
            x, y = 1.25 * (index % columns), -1.25 * (index // columns)
            xs, ys = np.linspace(x, x + 1, width + 1), np.linspace(y, y - 1, height + 1)
            axes.pcolormesh(xs, ys, image)
            learned = index < first["learned"]
            colour, width_of_line = (BLACK, 2.6) if learned else (GREY, 0.5)
            frame = Rectangle((x, y - 1), 1, 1, fill=False, ec=colour, lw=width_of_line)
            axes.add_patch(frame)
            if learned:
                axes.plot(x + 0.5, y + 0.12, marker="o", ms=3, color=BLACK)
        rows = -(-count // columns)
        axes.set_xlim(-0.15, 1.25 * columns - 0.1)
        axes.set_ylim(-1.25 * rows + 0.1, 0.25)
        axes.set_aspect("equal", anchor="NW")
        axes.set_axis_off()

    return panel
