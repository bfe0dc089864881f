"""Calls that ended without their hooks, and what they leave in PyTorch's stacks.

PyTorch calls forward hooks after an ``Exception``, and not after a ``KeyboardInterrupt`` or another
``BaseException``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode


def is_running(frame: FrameType) -> bool:
    """Whether the call that ``frame`` belongs to has not ended; clears the frame if it has."""
    try:
        frame.clear()
    except RuntimeError:
        # Python refuses to clear the frame of a call that is running.
        return True
    return False


def remove_mode(mode: Any, below: Any) -> None:
    """Takes ``mode`` out of the stack of function modes.

    Args:
        below: the mode that was entered before it. Its exit took the top of the stack, which was
            ``mode``, and left itself, if ``mode`` is not there.
    """
    _remove(mode, below, _get_current_function_mode_stack(), _pop_mode, _push_mode)


def remove_hooks(hooks: Any, below: Any) -> None:
    """As :func:`remove_mode`, of pairs of hooks for saved tensors."""
    # Their annotations in PyTorch are wrong.
    functions: Any = torch._C._autograd
    push, pop = (
        functions._push_saved_tensors_default_hooks,
        functions._pop_saved_tensors_default_hooks,
    )
    found: list[Any] = []
    while (top := functions._top_saved_tensors_default_hooks(True)) is not None:
        found.insert(0, top)
        pop()
    for pair in found:
        push(*pair)
    _remove(hooks, below, found, pop, lambda pair: push(*pair))


def _remove(
    own: Any,
    below: Any,
    stack: list[Any],
    pop: Callable[[], object],
    push: Callable[[Any], object],
) -> None:
    """Removes one entry of ``stack``, whose first entry is the lowest."""
    left = own if own in stack else below
    if left not in stack:
        return
    at = len(stack) - 1 - stack[::-1].index(left)
    for _ in stack[at:]:
        pop()
    for entry in stack[at + 1 :]:
        push(entry)
