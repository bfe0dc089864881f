"""Detects calls that must consist of PyTorch's own operators only."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad
from torch.fx import Proxy


def is_transformed() -> bool:
    """True within ``torch.func``'s transforms: ``vmap``, ``grad``, ``jvp`` and so on.

    They do not support an autograd.Function of a plain ``forward(ctx, ...)``, and torch.compile,
    which traces them too, takes its results for constants there.
    """
    return torch._C._are_functorch_transforms_active()


def needs_operators() -> bool:
    """True where gradients or tangents need PyTorch's operators in place of an autograd.Function.

    That is within ``torch.func``'s transforms and ``torch.autograd.forward_ad.dual_level``, for
    which a Function needs a ``jvp``. Operators on a detached tensor drop tangents there.
    """
    return is_transformed() or forward_ad._current_level >= 0


def check_not_proxy(layer: Any, input: Any) -> None:
    """TypeError while ``torch.fx`` traces the inside of ``layer``, which it cannot record."""
    if isinstance(input, Proxy):
        kind = type(layer).__name__
        raise TypeError(
            f"torch.fx cannot trace the inside of a {kind}; expected a tracer that takes {kind} as "
            f"a leaf (of torchvision: tracer_kwargs={{'leaf_modules': [{kind}]}}), or the plain "
            "model that maskedconv.merge_ makes of a copy"
        )


def is_traced(input: Any) -> bool:
    """True while ``torch.fx``, ``torch.jit.trace``, ``torch.export`` or ONNX export records.

    Such a graph may be loaded without this package. ``torch.compile`` is not included, because it
    compiles for this process only. True under ``torch.func``'s transforms as well, compiled or not.

    Args:
        input: the input of the called module; ``torch.fx`` passes a Proxy.
    """
    if torch.compiler.is_compiling():
        # The private flag, because torch.compile replaces is_exporting() by True in any case
        # (torch 2.11, torch/_dynamo/variables/torch.py, tracing_state_functions).
        recorded = torch.compiler._is_exporting_flag
    else:
        recorded = isinstance(input, Proxy) or torch._C._is_tracing()
    return recorded or is_transformed()
