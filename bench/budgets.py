"""Time against kept memory: training steps under ``torch.compile`` at several memory budgets.

``python -m bench.budgets`` measures plain networks and ours, eager and compiled with PyTorch's
``activation_memory_budget``, in one paired run, and draws a point for each.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config
from torch._inductor.compile_fx import compile_fx

from bench import results
from bench.plain_networks import PLAIN
from bench.results import Row
from bench.saved_bytes import of_network
from bench.steps import BATCH, Setting, images_and_labels, make, step_of
from bench.timing import ratio, release_freed_memory, time_together

BUDGETS = (1.0, 0.5, 0.2, 0.05)
LEARNED = 0.1
NAMES = {"conv2d": "plain", "maskedconv": "ours"}
COLOURS = {"conv2d": "#888888", "maskedconv": "#c0392b"}
LABELS = {"conv2d": (3, 5), "maskedconv": (3, -11)}  # from the point, so that none overlap
Run = Callable[[nn.Module, Tensor], Tensor]


def compiled(run: Run, budget: float) -> Run:
    """``run`` compiled at a memory budget; each has a backend of its own, and so its own code."""

    def backend(graph: Any, inputs: Any) -> Any:
        with config.patch(activation_memory_budget=budget):
            return compile_fx(graph, inputs)

    return torch.compile(run, backend=backend, fullgraph=True)


def measure(network: str, setting: Setting, rounds: int, budgets: tuple[float, ...]) -> Row:
    """The steps of one network, with ``saved_bytes`` of each."""
    steps, saved = {}, {}
    images, _ = images_and_labels(setting.device)
    for implementation in NAMES:
        for budget in (None, *budgets):
            model, run = make(implementation, *setting[:4])
            name = implementation
            if budget is not None:
                run, name = compiled(run, budget), f"{implementation} compiled {budget:g}"
            steps[name] = step_of(model, run, setting)
            with setting.autocast():
                saved[name] = of_network(model, images, run)
            print(".", end="", flush=True)
    samples = time_together(steps, setting.device, rounds, with_python=True)
    del steps
    torch.compiler.reset()
    release_freed_memory()
    subject = f"{network}, batch {BATCH[setting.device]}"
    over_plain = {name: ratio(samples, name, "conv2d") for name in samples}
    return results.row(
        "memory budgets", subject, LEARNED, "random", None, samples,
        saved_bytes=saved, over_plain=over_plain,
    )  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown: time over the plain eager step, and MiB kept for backward."""
    lines = ["\n| | step / plain | kept MiB |", "|---|---|---|"]
    for row in rows:
        for name, saved in row["saved_bytes"].items():
            over = row["over_plain"][name]
            lines.append(f"| {row['layer']}, {_label(name)} | {over:.2f} | {saved / 2**20:.0f} |")
    return "\n".join(lines)


def _label(name: str) -> str:
    implementation, _, rest = name.partition(" ")
    return f"{NAMES[implementation]} {rest or 'eager'}"


def draw(rows: list[Row], path: str) -> None:
    """A panel for each network: kept MiB, and the step's time over that of the plain eager one."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(4.2 * len(rows), 3.4), layout="constrained")
    panels = figure.subplots(1, len(rows), squeeze=False)[0]
    for panel, row in zip(panels, rows, strict=True):
        for implementation in NAMES:
            _draw_curve(panel, row, implementation)
        top = 1.15 * max(row["over_plain"].values())
        panel.set(title=row["layer"], xlabel="kept for backward, MiB", xscale="log", ylim=(0, top))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("step, over plain eager")
    panels[0].legend(loc="lower right", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    Image.open(buffer).convert("RGB").quantize(32).save(path, optimize=True)


def _draw_curve(panel: Any, row: Row, implementation: str) -> None:
    """The eager step, and the compiled ones with their budgets."""
    colour, label = COLOURS[implementation], NAMES[implementation]
    eager, *compiled = (name for name in row["saved_bytes"] if name.split()[0] == implementation)

    def point(name: str) -> tuple[float, float]:
        return row["saved_bytes"][name] / 2**20, row["over_plain"][name]

    panel.plot(*point(eager), "s", color=colour, label=f"{label}, eager")
    points = zip(*map(point, compiled), strict=True)
    panel.plot(*points, "o-", color=colour, label=f"{label}, compiled")
    # Budgets that keep the same tensors are one label.
    budgets: dict[int, list[str]] = {}
    for name in compiled:
        budgets.setdefault(row["saved_bytes"][name], []).append(name)
    for names in budgets.values():
        text = ", ".join(name.rpartition(" ")[2] for name in names)
        place = min(map(point, names), key=lambda at: at[1])
        panel.annotate(
            text, place, xytext=LABELS[implementation], textcoords="offset points", fontsize=8
        )


def main() -> None:
    parser = results.options(__doc__)
    parser.add_argument("--networks", nargs="+", choices=list(PLAIN), default=list(PLAIN))
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS)
    arguments = parser.parse_args()
    dtype, device = results.dtype_of(arguments), arguments.device
    rows = [
        measure(
            network,
            Setting(network, LEARNED, "random", device, dtype),
            arguments.rounds,
            tuple(arguments.budgets),
        )
        for network in arguments.networks
    ]
    print()
    results.write(device, dtype, "budgets", rows, table(rows))
    name = f"{results.device_name(device)}-budgets-{str(dtype).removeprefix('torch.')}.png"
    draw(rows, str(results.FOLDER / name))


if __name__ == "__main__":
    main()
