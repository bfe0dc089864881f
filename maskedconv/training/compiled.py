"""``--compile``: the forward pass of the training step under ``torch.compile``.

Imports torch only to compile.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


def check_compile(compile: bool, device: str) -> None:
    """ValueError if ``compile`` is True and a requirement of ``torch.compile`` is missing.

    The check is cheap and therefore not complete: no compiler is run.

    Args:
        device: "cuda" or "cpu".
    """
    if compile and (reason := _lacks(device)):
        raise ValueError(f"compile is True, but {reason}; expected it, or no --compile")


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The forward pass of ``model`` under ``torch.compile``; ``model`` and its names stay."""
    import torch

    # Not dynamic: the smaller batch at the end of an epoch has code of its own. With shared code,
    # the rounding of later steps would depend on which batches this process has seen.
    return torch.compile(model, dynamic=False)


def _lacks(device: str) -> str:
    """The requirement of ``torch.compile`` that ``device`` misses, or ""."""
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python.h is missing, Python's header for C"
    if device == "cuda":
        if find_spec("triton") is None:
            return "the package triton is missing"
        names = (os.environ["CC"],) if "CC" in os.environ else ("gcc", "clang")
        return _no_compiler("C", "CC", names)
    default = "clang++" if sys.platform == "darwin" else "g++"
    return _no_compiler("C++", "CXX", (os.environ.get("CXX", default),))


def _no_compiler(language: str, variable: str, names: tuple[str, ...]) -> str:
    """The reason why no compiler is found, or an empty string."""
    if any(shutil.which(name) for name in names):
        return ""
    return f"the {language} compiler {' or '.join(names)} is missing ({variable} names another)"
