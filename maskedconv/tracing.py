"""Whether a call is recorded as a graph that must hold PyTorch's own operators only."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Proxy


def is_traced(input: Any) -> bool:
    """True while ``torch.fx``, ``torch.jit.trace``, ``torch.export`` or ONNX export records.

    Such a graph is loaded where this package is not installed. ``torch.compile`` is not among
    them: it compiles for this process.

    Args:
        input: of the module that is called; ``torch.fx`` passes a Proxy.
    """
    if torch.compiler.is_compiling():
        # The flag itself: inside of torch.compile is_exporting() is true, whether it exports or not
        # (torch 2.11, torch/_dynamo/variables/torch.py, tracing_state_functions).
        return torch.compiler._is_exporting_flag
    return isinstance(input, Proxy) or torch._C._is_tracing()
