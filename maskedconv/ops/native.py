"""The compiled module ``maskedconv._C``, or the reason why it is not there."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import torch
from torch import Tensor

from maskedconv.build_notes import left_out
from maskedconv.ops.plain import address

ISA_VARIABLE = "MASKEDCONV_ISA"  # read by csrc/common/isa.cpp
# The types of elements, by the names that the module takes (csrc/common/types.h).
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def _load() -> tuple[ModuleType | None, str]:
    try:
        return importlib.import_module("maskedconv._C"), ""
    except ModuleNotFoundError:
        reason = left_out().get("native", "nothing was built for this Python")
        return None, f"maskedconv._C is not installed: {reason}"
    except ImportError as error:
        return None, f"maskedconv._C does not load: {error}"


_MODULE, REASON = _load()


def module() -> ModuleType | None:
    """The compiled module, or None; :data:`REASON` then says why."""
    return _MODULE


def why_missing() -> str:
    """Why there is no module for an operator of the CPU.

    Raises:
        RuntimeError: MASKEDCONV_ISA asks for an instruction set of its kernels all the same.
    """
    if wanted := os.environ.get(ISA_VARIABLE):
        raise RuntimeError(f"{ISA_VARIABLE} is {wanted!r}, but {REASON}")
    return REASON


def of_channels(part: Tensor, channels: int) -> Tensor:
    """One number a channel, ``[C]``, as the kernels for the CPU read them: float32, side by side.

    Raises:
        ValueError: they are of another number of channels.
    """
    if part.shape != (channels,):
        raise ValueError(
            f"what a BatchNorm does to a channel is {list(part.shape)}; expected [{channels}]"
        )
    # To ask is faster than a conversion that changes nothing.
    if part.dtype is torch.float32 and part.is_contiguous():
        return part
    return part.to(torch.float32).contiguous()


def rows_of_channels(table: Tensor, channels: int) -> list[int]:
    """Addresses of the rows of ``[R, C]``, which kernels read as float32, side by side.

    Raises:
        ValueError: they are of another number of channels, of another type or apart.
    """
    rows, columns = table.shape
    apart = channels > 1 and table.stride(1) != 1
    if columns != channels or table.dtype != torch.float32 or apart:
        raise ValueError(
            f"what a BatchNorm does to a channel is {list(table.shape)} of {table.dtype}, strides "
            f"{list(table.stride())}; expected [{rows}, {channels}] of float32, side by side"
        )
    first, step = address(table), table.stride(0) * table.element_size()
    return [first + row * step for row in range(rows)]
