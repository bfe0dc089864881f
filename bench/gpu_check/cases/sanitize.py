"""Step 6: compute-sanitizer on the kernels, launched without torch."""

from __future__ import annotations

from typing import Any

from bench.gpu_check import plan, shapes, tools
from bench.gpu_check.device import Device
from bench.gpu_check.record import NotHere


def run(case: str, device: Device, options: dict[str, Any]) -> dict[str, Any]:
    tool, _, kernel = case.partition(" | ")
    sanitizer = tools.find("compute-sanitizer", device.rehearsal)
    taken = shapes.SANITIZED
    if kernel == plan.UNCONFIRMED:
        if device.rehearsal:
            raise NotHere(f"{kernel} has no kernel for the CPU")
        taken = tuple(filter(plan.is_for_unconfirmed, taken))
    command = [
        *sanitizer, "--tool", tool, "--error-exitcode", "9",
        *tools.driver(taken, device.rehearsal, True, kernel),
    ]  # fmt: skip
    code, text = tools.output_of(command)
    faults = tools.faults_in(text)
    if faults is None or "Device not supported" in text:
        raise NotHere(f"{case} does not run (exit status {code}): {text[-500:]}")
    about = {"shape": [shape._asdict() for shape in taken], "faults": faults}
    if code == 0 and faults == 0:
        return {**about, "status": "ok"}
    return {**about, "status": "wrong", "output": text[-3000:]}
