"""Time of a layer's step by the filters that it learns: ``python -m bench.which`` prints a table.

A step is a forward and a backward pass, with the gradient of the input. Times are medians of the
rounds' ratios to ``nn.Conv2d``, in one thread.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor, nn

from bench.layers import CPU_LAYERS
from bench.timing import ratio, time_together
from maskedconv import methods

CASES = {
    "first filters": ("first", 0),
    "last filters": ("last", 0),
    "random filters": ("random", 0),
    "first channels": ("first", 1),
    "random channels": ("random", 1),
    "first kernel row": ("first", 2),
    "last kernel row": ("last", 2),
}


def step(module: nn.Module, input: Tensor, grad: Tensor) -> None:
    module.zero_grad()
    input.grad = None
    module(input).backward(grad)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learned", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| layer, learned {arguments.learned} | {' | '.join(CASES)} |")
    print("|---" * (1 + len(CASES)) + "|")
    for layer in CPU_LAYERS:
        if layer.kernel == 1:
            continue
        plain = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.padding,
            bias=False,
        ).to(memory_format=torch.channels_last)  # fmt: skip
        made = {
            name: methods.slice(arguments.learned, dim, which=which).convert(plain, 0)
            for name, (which, dim) in CASES.items()
        }
        shape = (layer.batch, layer.in_channels, layer.size, layer.size)
        input = torch.randn(shape).to(memory_format=torch.channels_last).requires_grad_()
        grad = torch.randn_like(plain(input))
        runs = {"plain": partial(step, plain, input, grad)}
        runs |= {name: partial(step, one, input, grad) for name, one in made.items()}
        samples = time_together(runs, "cpu", arguments.rounds)
        ratios = (f"{ratio(samples, name, 'plain'):.2f}" for name in made)
        print(f"| {layer} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    main()
