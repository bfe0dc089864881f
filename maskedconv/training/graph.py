"""The choice of ``--graph``: whether training steps are replayed as a CUDA graph.

Does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable

from maskedconv.checks import check_choice
from maskedconv.optim import CAPTURABLE

GRAPH = ("auto", "on", "off")


def check_graph(
    graph: str, device: str, optimizers: Iterable[str], processes: int = 1
) -> list[str]:
    """The reasons why some of the training steps cannot be captured, each once.

    Args:
        graph: "on" if every step must be captured, "auto" for those that can be, or "off".
        device: "cuda" or "cpu".
        optimizers: names of the optimizers of the steps.
        processes: number of processes that make each step together.

    Raises:
        ValueError: ``graph`` is not in ``GRAPH``, or is "on" and there is a reason.
    """
    check_choice("graph", graph, GRAPH)
    found = (why_not_captured(device, optimizer, processes) for optimizer in optimizers)
    reasons = list(dict.fromkeys(reason for reason in found if reason))
    if graph == "on" and reasons:
        raise ValueError(f"graph is 'on', but {'; '.join(reasons)}; expected auto or off")
    return reasons


def why_not_captured(device: str, optimizer: str, processes: int = 1) -> str:
    """The reason why a step with ``optimizer`` on ``device`` cannot be captured, or ""."""
    if device != "cuda":
        return f"a CUDA graph needs the device cuda, not {device}"
    if processes > 1:
        return "a step of several processes is eager"
    if optimizer not in CAPTURABLE:
        return f"{optimizer} computes some numbers of its step on the host"
    return ""
