"""Compares every convolution of the paper's five networks, in every setting, with PyTorch.

``python -m bench.networks`` measures forward and backward of the layer, ``nn.Conv2d`` and the
sliced peer with the paper's batch sizes, lists the settings above the limits, and writes to
``bench/results/``. A setting above a limit is measured again, because some of several hundred
medians exceed a limit by chance. Its figure is then the median of all rounds.
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
FURTHER = 4  # repetitions of a measurement above a limit
WORST = 15


class Setting(NamedTuple):
    layer: Layer
    learned: int


def settings() -> dict[Setting, str]:
    """Each distinct layer and number of learned filters, with the first network that has it."""
    found: dict[Setting, str] = {}
    for network in NETWORKS:
        for layer in layers_of(network):
            for learned in numbers_of_filters(layer):
                found.setdefault(Setting(layer, learned), network)
    return found


def measure(device: str, dtype: torch.dtype, rounds: int) -> list[Row]:
    """A row for each setting."""
    best = ceilings.measure(device, dtype)
    networks = settings()
    samples = {
        setting: _sample(setting, device, dtype, rounds)
        for setting in _with_progress(list(networks), "settings")
    }
    for _ in range(FURTHER):
        # Some time later, because a disturbance may last longer than all rounds of a setting.
        doubtful = [setting for setting in networks if _is_above(samples[setting])]
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


def _is_above(samples: Samples) -> bool:
    return any(
        ratio(samples, "maskedconv", name) > limit
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


def main() -> None:
    arguments = results.options(__doc__).parse_args()
    dtype = results.dtype_of(arguments)
    rows = measure(arguments.device, dtype, arguments.rounds)
    results.write(arguments.device, dtype, "networks", rows, worst(rows))


if __name__ == "__main__":
    main()
