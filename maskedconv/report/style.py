"""The style of every figure, with a palette for colour-blind readers (Okabe & Ito 2008)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

BLACK = "#222222"
GREY = "#6b6b6b"
BLUE = "#0072B2"
SKY = "#56B4E9"
GREEN = "#009E73"
ORANGE = "#E69F00"
RED = "#D55E00"
PINK = "#CC79A7"

RANDOM, ZERO = BLUE, RED
FROZEN_COLOURS = {"random": RANDOM, "zero": ZERO}
# Colour and marker of each family: markers also differ in a greyscale print.
FAMILY_MARKS = {
    "densenet": (BLUE, "o"),
    "wrn": (GREEN, "s"),
    "vgg19_bn": (RED, "^"),
    "vgg19": (PINK, "v"),
    "alexnet": (ORANGE, "D"),
    "": (GREY, "P"),
}
DIM_MARKS = {0: (BLUE, "o"), 1: (RED, "s"), 2: (GREEN, "^"), 3: (ORANGE, "D")}

PANEL = (5.0, 3.5)  # inches

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.7,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.3,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "hatch.linewidth": 0.7,
    "lines.linewidth": 1.6,
    # Names of classes and networks are from outside, and a $ in them is no formula.
    "text.parse_math": False,
    "svg.fonttype": "path",
    # A fixed salt makes the SVG files deterministic.
    "svg.hashsalt": "maskedconv",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Context that applies the style to all figures drawn in it."""
    import matplotlib as mpl

    with mpl.rc_context(_RC):
        yield
