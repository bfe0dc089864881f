"""The compiled module ``maskedconv._C``, or the reason why it is not there."""

from __future__ import annotations

import functools
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


@functools.cache
def why_no_code_for(device: torch.device) -> str:
    """The reason why that GPU does not run the CUDA part, or an empty string.

    The module may have no code for it, or the driver may be too old for the CUDA version of the
    build. The latter is asked about one kernel for all, as they are built alike.
    """
    archs = loaded().build_info()["cuda_archs"]
    capability = torch.cuda.get_device_capability(device)
    if not has_code_for(archs, capability):
        has = ".".join(map(str, capability))
        return f"maskedconv._C was built for sm {archs}; {device} has compute capability {has}"
    with torch.cuda.device(device):
        # It has the smallest source: the driver may have to compile it.
        error = loaded().pack_filters_cuda_error()
    return f"CUDA does not load the kernels of maskedconv._C on {device}: {error}" if error else ""


def has_code_for(archs: str, capability: tuple[int, int]) -> bool:
    """Whether a GPU runs what was built for ``archs``, such as "80 90 100".

    A GPU runs code of its major version and a minor one up to its own, and compiles the PTX of the
    last architecture if that is not above its own.
    """
    built = [divmod(int(arch.rstrip("a")), 10) for arch in archs.split()]
    major, minor = capability
    exact = any(one[0] == major and one[1] <= minor for one in built)
    portable = bool(built) and not archs.endswith("a") and built[-1] <= capability
    return exact or portable


def why_missing() -> str:
    """Why there is no module for an operator of the CPU.

    Raises:
        RuntimeError: MASKEDCONV_ISA asks for an instruction set of its kernels all the same.
    """
    if wanted := os.environ.get(ISA_VARIABLE):
        raise RuntimeError(f"{ISA_VARIABLE} is {wanted!r}, but {REASON}")
    return REASON
