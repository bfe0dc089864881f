"""The backends that the tests of an operator run on CPU tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def cpu_backends(backends: Mapping[str, Any]) -> list[str]:
    """Names of the reference and of the kernels for the CPU, in the order of the table.

    ``test_gpu*.py`` have the others, which take no tensor of the CPU.
    """
    kernels = {name: backend for name, backend in backends.items() if name != "reference"}
    return ["reference", *(name for name, kernel in kernels.items() if "cpu" in kernel.DEVICES)]
