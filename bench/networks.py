"""Every convolution of the paper's networks at every setting of the paper, beside plain PyTorch.

``python -m bench.networks`` measures forward and backward of the layer against ``nn.Conv2d`` and
the careful user's sliced backward, and prints the worst ratios; all go to ``bench/results/``.
"""

from __future__ import annotations

import torch

from bench import ceilings, results
from bench.compare import forward_and_backward
from bench.layers import NETWORKS, Layer, layers_of, numbers_of_filters, tensors
from bench.results import Row, row
from bench.timing import time_together

BATCH = {"cpu": 32, "cuda": 128}
PEERS = ("conv2d", "sliced backward")
WORST = 15


def measure(device: str, dtype: torch.dtype, rounds: int) -> list[Row]:
    """A row for each different layer and number of learned filters."""
    best = ceilings.measure(device, dtype)
    found: dict[Layer, str] = {}
    for network in NETWORKS:
        for layer in layers_of(network, BATCH[device]):
            found.setdefault(layer, network)
    rows: list[Row] = []
    for position, (layer, network) in enumerate(found.items(), start=1):
        x, grad = tensors(layer, device, dtype)
        for learned in numbers_of_filters(layer):
            every = forward_and_backward(layer, learned, "random", x, grad)
            functions = {name: every[name] for name in ("maskedconv", *PEERS) if name in every}
            times = time_together(functions, device, rounds)
            least = best.milliseconds(*ceilings.step(layer, learned, "random", x.element_size()))
            rows.append(
                row("forward and backward", layer, learned, "random", least, times, network=network)
            )
        print(f"\r{position} of {len(found)} layers", end="", flush=True)
    print()
    return rows


def worst(rows: list[Row]) -> str:
    """Where ours is slowest beside each peer, as Markdown."""
    lines = []
    for peer in PEERS:
        ratios = sorted(
            (
                (row["ms"]["maskedconv"].p50 / row["ms"][peer].p50, row)
                for row in rows
                if peer in row["ms"]
            ),
            key=lambda pair: -pair[0],
        )
        lines.append(f"\nours / {peer}, the {WORST} largest of {len(ratios)}:\n")
        lines += [
            f"- {ratio:.3f}: {row['layer']}, {row['learned']} learned ({row['network']}), "
            f"{row['ms']['maskedconv'].p50:.3f} ms"
            for ratio, row in ratios[:WORST]
        ]
    return "\n".join(lines)


def main() -> None:
    arguments = results.parse(__doc__)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    rows = measure(arguments.device, dtype, arguments.rounds)
    results.write(arguments.device, dtype, "networks", rows, worst(rows))


if __name__ == "__main__":
    main()
