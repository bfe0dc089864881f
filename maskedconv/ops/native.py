"""The compiled module ``maskedconv._C``, or the reason why it is not there."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import torch

from maskedconv.build_notes import left_out

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


def loaded() -> ModuleType:
    """The compiled module.

    Raises:
        RuntimeError: there is none, for the reason that the message gives.
    """
    found = module()
    if found is None:
        raise RuntimeError(REASON)
    return found


def why_no_cuda(function: str) -> str:
    """The reason why the module lacks ``function`` of its CUDA part, or an empty string."""
    found = module()
    if found is None:
        return REASON
    return "" if hasattr(found, function) else "maskedconv._C was built without CUDA"


def why_missing() -> str:
    """Why there is no module for an operator of the CPU.

    Raises:
        RuntimeError: MASKEDCONV_ISA asks for an instruction set of its kernels all the same.
    """
    if wanted := os.environ.get(ISA_VARIABLE):
        raise RuntimeError(f"{ISA_VARIABLE} is {wanted!r}, but {REASON}")
    return REASON
