"""Compares a supermask's weight and the gradient of its scores with the public code's way.

``python -m bench.masked_weights`` measures every distinct weight shape of ResNet-50 and WRN-28-10:
the threshold and the masked weight together, as in each forward pass, the gradient of the scores,
and both through autograd. The peer is plain PyTorch as in the public code of edge-popup: sort all
scores, write zeros and ones by the order, multiply; and for the gradient the products of autograd:
by the weight, and, as the mask depends on the magnitude of the scores, by their sign.
OMP_NUM_THREADS sets the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench import results
from bench.results import Row, row
from bench.timing import time_together
from maskedconv.ops.dispatch import recorded_decisions
from maskedconv.ops.masked_weight import find_threshold, masked_weight, score_grad

Shape = tuple[int, int, int, int]
KEPT = 0.3
# [O, I, kH, kW]; fully connected layers count as 1x1 convolutions. Shapes with as many elements and
# the same kernel are listed once.
RESNET_50: tuple[Shape, ...] = (
    (64, 3, 7, 7), (64, 64, 1, 1), (64, 64, 3, 3), (256, 64, 1, 1), (128, 256, 1, 1),
    (128, 128, 3, 3), (512, 128, 1, 1), (512, 256, 1, 1), (256, 256, 3, 3), (1024, 256, 1, 1),
    (1024, 512, 1, 1), (512, 512, 3, 3), (2048, 512, 1, 1), (2048, 1024, 1, 1), (1000, 2048, 1, 1),
)  # fmt: skip
WRN_28_10: tuple[Shape, ...] = (
    (16, 3, 3, 3), (160, 16, 1, 1), (160, 16, 3, 3), (160, 160, 3, 3), (320, 160, 1, 1),
    (320, 160, 3, 3), (320, 320, 3, 3), (640, 320, 1, 1), (640, 320, 3, 3), (640, 640, 3, 3),
    (10, 640, 1, 1),
)  # fmt: skip
CIFAR_FIRST: Shape = (64, 3, 3, 3)
SHAPES = (CIFAR_FIRST, *RESNET_50, *WRN_28_10)
Functions = dict[str, Callable[[], object]]


def tensors(shape: Shape, device: str) -> tuple[Tensor, ...]:
    """Weight, scores as edge-popup draws them (uniform), and a gradient."""
    generator = torch.Generator().manual_seed(0)
    weight, grad = (torch.randn(shape, generator=generator) for _ in range(2))
    score = torch.rand(shape, generator=generator) * 2 - 1
    return tuple(t.to(device) for t in (weight, score, grad))


def sort_and_multiply(weight: Tensor, score: Tensor, num_kept: int) -> Tensor:
    """The public code's way."""
    return weight * sorted_mask(score.abs(), num_kept)


def sorted_mask(magnitude: Tensor, num_kept: int) -> Tensor:
    """Ones for the last ``num_kept`` of the sorted magnitudes, else zeros."""
    mask = magnitude.clone().flatten()
    order = magnitude.flatten().sort().indices
    mask[order[: mask.numel() - num_kept]] = 0
    mask[order[mask.numel() - num_kept :]] = 1
    return mask.view_as(magnitude)


def forward(weight: Tensor, score: Tensor) -> Functions:
    """Threshold and masked weight."""
    num_kept = int(KEPT * score.numel())
    return {
        "maskedconv": lambda: masked_weight(weight, score, find_threshold(score, num_kept)),
        "sort": lambda: sort_and_multiply(weight, score, num_kept),
    }


def gradient(weight: Tensor, score: Tensor, grad: Tensor) -> Functions:
    """The gradient of the scores; plain PyTorch multiplies by the weight and by the sign."""
    return {
        "maskedconv": lambda: score_grad(grad, weight, score),
        "multiply": lambda: grad * weight * score.sign(),
    }


class _Masked(torch.autograd.Function):
    """A supermask's weight by the operators."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, score: Tensor, num_kept: int) -> Tensor:
        ctx.save_for_backward(weight, score)
        return masked_weight(weight, score, find_threshold(score, num_kept))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, score_grad(grad, *ctx.saved_tensors), None


class _Sorted(torch.autograd.Function):
    """The public code's mask; its gradient is passed on."""

    @staticmethod
    def forward(ctx: Any, magnitude: Tensor, num_kept: int) -> Tensor:
        return sorted_mask(magnitude, num_kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, None


def both(weight: Tensor, score: Tensor, grad: Tensor) -> Functions:
    """Forward and backward through autograd; the public code differentiates the magnitude, too."""
    leaf, num_kept = score.clone().requires_grad_(), int(KEPT * score.numel())

    def step(masked: Callable[[], Tensor]) -> None:
        leaf.grad = None
        masked().backward(grad)

    return {
        "maskedconv": lambda: step(lambda: _Masked.apply(weight, leaf, num_kept)),
        "sort": lambda: step(lambda: weight * _Sorted.apply(leaf.abs(), num_kept)),
    }


def measure(device: str, rounds: int, shapes: tuple[Shape, ...] = SHAPES) -> list[Row]:
    """A row for each shape and pass."""
    rows: list[Row] = []
    for shape in shapes:
        weight, score, grad = tensors(shape, device)
        name = "x".join(map(str, shape))
        for what, functions in (
            ("threshold and masked weight", forward(weight, score)),
            ("gradient of the scores", gradient(weight, score, grad)),
            ("forward and backward through autograd", both(weight, score, grad)),
        ):
            with recorded_decisions() as decisions:
                functions["maskedconv"]()
            (backend,) = {decision.backend for decision in decisions}
            samples = time_together(functions, device, rounds)
            rows.append(row(what, name, f"{KEPT} kept", backend, None, samples))
        print(".", end="", flush=True)
    print()
    return rows


def slowest(rows: list[Row]) -> str:
    """How much faster than the peer the slowest shape of each pass is, as Markdown."""
    lines = []
    for what in dict.fromkeys(row_["what"] for row_ in rows):
        found = [row_ for row_ in rows if row_["what"] == what]
        ratios = {row_["layer"]: 1 / _over(row_) for row_ in found}
        least = min(ratios, key=lambda layer: ratios[layer])
        lines.append(f"- {what}: at least {ratios[least]:.2f} times as fast ({least})")
    return "\n".join(["", *lines])


def _over(row_: dict[str, Any]) -> float:
    (ratio,) = row_["ours_over"]["maskedconv"].values()
    return float(ratio)


def main() -> None:
    parser = results.options(__doc__)
    arguments = parser.parse_args()
    if arguments.dtype not in (None, "float32"):
        parser.error(f"dtype is {arguments.dtype}; expected float32, that of weights and scores")
    rows = measure(arguments.device, arguments.rounds)
    further = arguments.device, torch.float32, "masked-weights", rows, slowest(rows)
    results.write(*further, layout="contiguous")


if __name__ == "__main__":
    main()
