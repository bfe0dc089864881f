"""The README's speed tables, from the committed measurements: ``python -m bench.readme``."""

from __future__ import annotations

import json
from typing import Any

from bench.layers import CPU_LAYERS, Layer
from bench.results import FOLDER, Row

DEVICE = "cpu-x86_64-2-threads"
HEADER = """\
| layer | weight gradient, 1 filter: sliced / ours | p = .1: sliced / ours | step at p = .1: \
ours / nn.Conv2d | ours / fastest peer | zeroed: ours / nn.Conv2d | ours / fastest peer |
|---|--:|--:|--:|--:|--:|--:|"""
STEPS_HEADER = """\
| network, {batch} | step: ours / nn.Conv2d | ours / compiled nn.Conv2d | \
ours / fastest peer | peak memory: ours / nn.Conv2d |
|---|--:|--:|--:|--:|"""


def rows_of(name: str) -> list[Row]:
    """The committed measurements with this name."""
    record = json.loads((FOLDER / f"{DEVICE}-{name}.json").read_text())
    return list(record["rows"])


def fastest_peer(over: dict[str, float]) -> float:
    """Time of this package over that of the fastest other implementation."""
    return max(ratio for name, ratio in over.items() if not name.startswith("maskedconv"))


def layer_table() -> str:
    """A row for each layer of the comparison."""
    rows = rows_of("layers")
    return "\n".join([HEADER, *(_layer_line(rows, layer) for layer in CPU_LAYERS)])


def _layer_line(rows: list[Row], layer: Layer) -> str:
    tenth = max(1, int(0.1 * layer.out_channels))

    def ours_over(what: str, learned: int, frozen: str = "random") -> dict[str, dict[str, float]]:
        return next(
            row["ours_over"]
            for row in rows
            if (row["what"], row["layer"], row["learned"], row["frozen"])
            == (what, str(layer), learned, frozen)
        )

    gradients = [ours_over("weight gradient", learned) for learned in (1, tenth)]
    steps = [
        ours_over("forward and backward", tenth, frozen)["maskedconv"]
        for frozen in ("random", "zero")
    ]
    cells = [
        *(f"{1 / one['native']['sliced backward']:.2f}" for one in gradients),
        *(f"{ratio:.2f}" for over in steps for ratio in (over["conv2d"], fastest_peer(over))),
    ]
    name = _unbroken(str(layer).replace("->", "→"))
    return f"| {name} | {' | '.join(cells)} |"


def _unbroken(label: str) -> str:
    """The label without spaces that can break: narrow pages would give it a line per word."""
    return label.replace(" ", "\N{NO-BREAK SPACE}")


def step_table() -> str:
    """A row for each network and setting."""
    rows = [
        (row, dtype)
        for dtype, name in (("float32", "steps"), ("bfloat16", "steps-bfloat16"))
        for row in rows_of(name)
    ]
    (batch,) = {row["layer"].partition(", ")[2] for row, _ in rows}
    lines = [_step_line(row, dtype) for row, dtype in rows]
    return "\n".join([STEPS_HEADER.format(batch=batch), *lines])


def _step_line(row: dict[str, Any], dtype: str) -> str:
    over = row["ours_over"]["maskedconv"]
    peaks = row["peak_bytes"]  # without any by bench.steps --brief
    peak = f"{peaks['maskedconv'] / peaks['conv2d']:.2f}" if peaks else "–"
    ratios = [over["conv2d"], over["conv2d compiled"], fastest_peer(over)]
    label = f"{row['layer'].partition(', ')[0]}, {dtype}, p = {row['learned']:g}"
    label += ", zeroed" if row["frozen"] == "zero" else ""
    return f"| {' | '.join([_unbroken(label), *(f'{ratio:.2f}' for ratio in ratios), peak])} |"


def tables() -> str:
    """The text between the README's markers."""
    return f"{layer_table()}\n\n{step_table()}"


def main() -> None:
    print(tables())


if __name__ == "__main__":
    main()
