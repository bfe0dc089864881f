"""Step 4: whole training steps, eager and as a graph."""

from __future__ import annotations

from typing import Any

from bench.gpu_check.device import Device
from bench.gpu_check.training_steps import Training, measure

# The network of the previous case, which the next case captures as a graph.
_last: list[tuple[str, Training]] = []


def run(case: str, device: Device, options: dict[str, Any]) -> dict[str, Any]:
    network, implementation, mode = case.split(" | ")
    name = f"{network} | {implementation}"
    if not _last or _last[0][0] != name:
        _last.clear()
        device.free()
        compiled = implementation == "plain compiled"
        training = Training(network, "plain" if compiled else implementation, compiled, device)
        _last.append((name, training))
    about = {"network": network, "implementation": implementation, "mode": mode}
    return {**about, **measure(_last[0][1], mode, device)}
