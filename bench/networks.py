"""Compares every convolution of the paper's five networks, in every setting, with PyTorch.

``python -m bench.networks`` measures forward and backward of the layer, ``nn.Conv2d`` and the
sliced peer with the paper's batch sizes, lists the settings above the limits, and writes to
``bench/results/``. A setting above a limit or close below it is measured again, because some of
several hundred medians are on the wrong side by chance. Its figure is then the median of all
rounds. ``--brief`` measures one filter and four fractions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from bench import ceilings, results
from bench.compare import forward_and_backward
from bench.layers import NETWORKS, Layer, layers_of, numbers_of_filters, tensors
from bench.results import Row, row
from bench.timing import Samples, ratio, time_together

# The most that ours may take, as a multiple of each.
LIMITS = {"conv2d": 1.05, "sliced backward": 1.03}
CLOSE = 0.02
FURTHER = 4  # repetitions of a measurement above a limit or close below it
WORST = 4

BRIEF_FRACTIONS = (0.1, 0.4, 0.7, 1.0)


class Setting(NamedTuple):
    layer: Layer
    learned: int


def settings(brief: bool = False) -> dict[Setting, str]:
    """Each distinct layer and number of learned filters, with the first network that has it."""
    found: dict[Setting, str] = {}
    for network in NETWORKS:
        for layer in layers_of(network):
            for learned in few_numbers(layer) if brief else numbers_of_filters(layer):
                found.setdefault(Setting(layer, learned), network)
    return found


def few_numbers(layer: Layer) -> list[int]:
    """One filter, and the fractions' numbers."""
    return [1, *(max(1, int(p * layer.out_channels + 1e-9)) for p in BRIEF_FRACTIONS)]


def measure(device: str, dtype: torch.dtype, rounds: int, brief: bool = False) -> list[Row]:
    """A row for each setting."""
    best = ceilings.measure(device, dtype)
    networks = settings(brief)
    samples = {
        setting: _sample(setting, device, dtype, rounds)
        for setting in _with_progress(list(networks), "settings")
    }
    for _ in range(FURTHER):
        # Some time later, because a disturbance may last longer than all rounds of a setting.
        doubtful = [setting for setting in networks if _is_doubtful(samples[setting])]
        for setting in _with_progress(doubtful, "settings again"):
            further = _sample(setting, device, dtype, rounds)
            for name, times in further.items():
                samples[setting][name] += times
    return [
        row(
            "forward and backward", *setting, "random",
            best.milliseconds(*ceilings.step(*setting, "random", dtype.itemsize)),
            samples[setting], network=network, rounds=len(samples[setting]["maskedconv"]),
        )
        for setting, network in networks.items()
    ]  # fmt: skip


def _sample(setting: Setting, device: str, dtype: torch.dtype, rounds: int) -> Samples:
    x, grad = tensors(setting.layer, device, dtype)
    every = forward_and_backward(*setting, "random", x, grad)
    functions = {name: every[name] for name in ("maskedconv", *LIMITS) if name in every}
    return time_together(functions, device, rounds)


def _is_doubtful(samples: Samples) -> bool:
    return any(
        ratio(samples, "maskedconv", name) > limit - CLOSE
        for name, limit in LIMITS.items()
        if name in samples
    )


def _with_progress(items: list[Setting], what: str) -> Iterator[Setting]:
    for position, item in enumerate(items, start=1):
        yield item
        print(f"\r{position} of {len(items)} {what}", end="", flush=True)
    print()


def worst(rows: list[Row]) -> str:
    """The number of settings above each limit, and the slowest settings, as Markdown."""
    lines = []
    for peer, limit in LIMITS.items():
        found = [row for row in rows if peer in row["ms"]]
        found.sort(key=lambda row: -row["ours_over"]["maskedconv"][peer])
        above = sum(row["ours_over"]["maskedconv"][peer] > limit for row in found)
        lines.append(f"\nours / {peer}: {above} of {len(found)} above {limit}; the largest:\n")
        lines += [
            f"- {row['ours_over']['maskedconv'][peer]:.3f}: {row['layer']}, {row['learned']} "
            f"learned ({row['network']}), {row['ms']['maskedconv'].p50:.3f} ms, "
            f"{row['rounds']} rounds"
            for row in found[:WORST]
        ]
    return "\n".join(lines)


def layer_table(rows: list[Row]) -> str:
    """A line for each layer."""
    lines = [
        "Times over nn.Conv2d by number of learned filters, and the largest over the sliced "
        "backward.",
        "",
        "| layer | / conv2d | / sliced |",
        "|---|---|---|",
    ]
    for layer in dict.fromkeys(found["layer"] for found in rows):
        over = {
            found["learned"]: found["ours_over"]["maskedconv"]
            for found in rows
            if found["layer"] == layer
        }
        full = ", ".join(f"{count}: {ratios['conv2d']:.2f}" for count, ratios in over.items())
        sliced = max(ratios.get("sliced backward", 0) for ratios in over.values())
        lines.append(f"| {layer} | {full} | {sliced:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = results.options(__doc__)
    parser.add_argument("--brief", action="store_true", help="five numbers of filters, one table")
    arguments = parser.parse_args()
    dtype = results.dtype_of(arguments)
    rows = measure(arguments.device, dtype, arguments.rounds, arguments.brief)
    name = "networks-brief" if arguments.brief else "networks"
    text = f"{layer_table(rows)}\n{worst(rows)}"
    results.write_text(arguments.device, dtype, name, text)


if __name__ == "__main__":
    main()
