"""Every convolution of the paper's five networks at every setting of the paper, beside PyTorch.

``python -m bench.networks`` measures forward and backward of the layer against ``nn.Conv2d`` and
the careful user's sliced backward, in the paper's batches, and says where ours is slower than the
limits; all goes to ``bench/results/``. What seems to be above a limit is measured further, as some
of hundreds of medians are so by chance: the figure is then that of all rounds, the first ones too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from bench import ceilings, results
from bench.compare import forward_and_backward
from bench.layers import NETWORKS, Layer, layers_of, numbers_of_filters, tensors
from bench.results import Row, row
from bench.timing import Samples, ratio, time_together

# The most that ours may take, as a multiple of each.
LIMITS = {"conv2d": 1.05, "sliced backward": 1.03}
FURTHER = 4  # times as many rounds where a limit is in question
WORST = 15


def measure(device: str, dtype: torch.dtype, rounds: int) -> list[Row]:
    """A row for each different layer and number of learned filters."""
    best = ceilings.measure(device, dtype)
    found: dict[Layer, str] = {}
    for network in NETWORKS:
        for layer in layers_of(network):
            found.setdefault(layer, network)
    rows: list[Row] = []
    for position, (layer, network) in enumerate(found.items(), start=1):
        x, grad = tensors(layer, device, dtype)
        for learned in numbers_of_filters(layer):
            every = forward_and_backward(layer, learned, "random", x, grad)
            functions = {name: every[name] for name in ("maskedconv", *LIMITS) if name in every}
            samples = _samples(functions, device, rounds)
            least = best.milliseconds(*ceilings.step(layer, learned, "random", x.element_size()))
            rows.append(
                row(
                    "forward and backward", layer, learned, "random", least, samples,
                    network=network, rounds=len(samples["maskedconv"]),
                )
            )  # fmt: skip
        print(f"\r{position} of {len(found)} layers", end="", flush=True)
    print()
    return rows


def _samples(functions: Mapping[str, Callable[[], object]], device: str, rounds: int) -> Samples:
    samples = time_together(functions, device, rounds)
    for _ in range(FURTHER):
        if all(
            ratio(samples, "maskedconv", name) <= LIMITS[name]
            for name in functions
            if name in LIMITS
        ):
            break
        further = time_together(functions, device, rounds, warmup=0)
        samples = {name: samples[name] + further[name] for name in samples}
    return samples


def worst(rows: list[Row]) -> str:
    """How many are above each limit, and the slowest beside each, as Markdown."""
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
    arguments = results.parse(__doc__)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    rows = measure(arguments.device, dtype, arguments.rounds)
    results.write(arguments.device, dtype, "networks", rows, worst(rows))


if __name__ == "__main__":
    main()
