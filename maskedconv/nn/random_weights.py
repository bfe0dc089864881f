"""Frozen random weights of supermasks (Ramanujan et al. 2019, arXiv 1911.13299)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from maskedconv.seeds import seed_of_32_bits

Weights = Literal["signed_constant", "kaiming", "uniform", "network"]
WEIGHTS: tuple[str, ...] = get_args(Weights)


@torch.no_grad()
def draw_weights_(
    weight: Tensor, weights: str, gain: float, generator: torch.Generator | None
) -> Tensor:
    """Draws ``weight`` ``[O, ...]`` in place and returns it.

    Args:
        weights: "signed_constant" for ±σ with equal probability, or "kaiming" for N(0, σ²), both
            with σ = gain · √2 / √fan_in. "uniform" is PyTorch's initialisation of its own layers,
            multiplied by ``gain``; "network" as well, until a network that initialises its plain
            layers otherwise draws these layers likewise (:meth:`ScoredLayer.draw_frozen_`).
    """
    if weights in ("uniform", "network"):
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        return weight.mul_(gain)
    sigma = gain * math.sqrt(2 / max(1, math.prod(weight.shape[1:])))
    if weights == "kaiming":
        return nn.init.normal_(weight, 0.0, sigma, generator=generator)
    positive = torch.randint(2, weight.shape, generator=generator, device=weight.device)
    return weight.copy_(positive).sub_(0.5).mul_(2 * sigma)


def kept_gain(k: float) -> float:
    """1 / √k, which restores the variance of a layer's output; 1 if nothing is kept."""
    return 1 / math.sqrt(k) if k else 1.0


def seeded(seed: int | None) -> torch.Generator | None:
    """A generator on the CPU; None, for torch's own, without a seed."""
    return None if seed is None else torch.Generator().manual_seed(seed_of_32_bits(seed))


def empty_weight(
    frozen: Tensor | None,
    shape: Sequence[int],
    device: torch.device | str | int | None,
    dtype: torch.dtype | None,
) -> Tensor:
    """A weight of any values.

    Args:
        frozen: gives memory format, and the default of device and dtype.

    Raises:
        ValueError: ``frozen`` is of another shape or dtype.
    """
    if frozen is None:
        return torch.empty(tuple(shape), device=device, dtype=dtype)
    like = torch.empty_like(frozen, device=device, dtype=dtype, requires_grad=False)
    if (like.shape, like.dtype) != (torch.Size(shape), frozen.dtype):
        raise ValueError(
            f"frozen is {list(frozen.shape)} of {frozen.dtype}; expected {list(shape)} of "
            f"{like.dtype}"
        )
    return like
