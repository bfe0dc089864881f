"""Checks of the arguments of masked_conv2d."""

from __future__ import annotations

from torch import Tensor

from maskedconv import slices
from maskedconv.functional.filter_bank import FilterBank


def check_input(input: Tensor, channels: int, groups: int) -> None:
    """ValueError unless ``input`` is ``[N, C, H, W]`` or ``[C, H, W]`` of so many channels."""
    if input.dim() not in (3, 4):
        raise ValueError(f"input has {input.dim()} dimensions; expected [N, C, H, W] or [C, H, W]")
    if input.size(-3) != channels:
        raise ValueError(
            f"input has {input.size(-3)} channels; expected {channels} "
            f"({channels // groups} for each of {groups} groups)"
        )


def check_arguments(input: Tensor, bank: FilterBank, groups: int) -> None:
    """ValueError unless the parts of ``bank``, ``input`` and ``groups`` fit together."""
    learned, frozen, _, _, slice_dim, zeros, _ = bank
    slices.check_slice_dim(slice_dim)
    if learned.dim() != 4:
        raise ValueError(f"learned has {learned.dim()} dimensions; expected [O, I, kH, kW]")
    if zeros < 0 or (zeros and frozen is not None):
        raise ValueError(f"zeros is {zeros}; expected >= 0, and 0 when frozen filters are given")
    if frozen is not None:
        _check_alike(learned, frozen, slice_dim)
    out_channels, in_channels, *_ = bank.shape
    check_input(input, in_channels * groups, groups)
    if out_channels % groups:
        raise ValueError(
            f"groups is {groups}; expected a divisor of the {out_channels} output filters"
        )
    _check_bias(bank, learned.size(0) if slice_dim == 0 else out_channels, out_channels)


def _check_alike(learned: Tensor, frozen: Tensor, slice_dim: int) -> None:
    shapes = [[n for dim, n in enumerate(t.shape) if dim != slice_dim] for t in (learned, frozen)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"frozen is {list(frozen.shape)}; expected the shape of learned, "
            f"{list(learned.shape)}, except for dimension {slice_dim}"
        )


def _check_bias(bank: FilterBank, count: int, out_channels: int) -> None:
    """Checks both parts of the bias; ``count`` is the number of values that are learned."""
    _, frozen, bias, frozen_bias, slice_dim, _, _ = bank
    if bias is not None and bias.shape != (count,):
        raise ValueError(f"bias is {list(bias.shape)}; expected [{count}]")
    if frozen_bias is not None:
        rest = out_channels - count if frozen is not None else 0
        if frozen_bias.shape != (rest,) or (bias is None and count):
            raise ValueError(
                f"frozen_bias is {list(frozen_bias.shape)}; expected [{rest}], "
                "beside the bias of the learned filters"
            )
    elif bias is not None and slice_dim == 0 and frozen is not None and frozen.size(0):
        raise ValueError(f"frozen_bias is None; expected [{frozen.size(0)}] beside bias")
