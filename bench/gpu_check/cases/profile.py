"""Step 5: Nsight Compute on a few shapes, if it is installed and may read the counters."""

from __future__ import annotations

from typing import Any

from bench.gpu_check import shapes, tools
from bench.gpu_check.device import Device
from bench.gpu_check.problems import about_shape, by_name
from bench.gpu_check.record import NotHere


def run(case: str, device: Device, options: dict[str, Any]) -> dict[str, Any]:
    shape = by_name(shapes.profiled(device.rehearsal), case)
    command = [
        *tools.find("ncu", device.rehearsal), "--csv", "--page", "raw", "--clock-control", "none",
        "--metrics", ",".join(tools.METRICS),
        *tools.driver((shape,), device.rehearsal, check=False),
    ]  # fmt: skip
    code, text = tools.output_of(command)
    kernels = tools.kernels_in(text)
    if not kernels:
        lines = [line for line in text.splitlines() if line.startswith("==ERROR==")]
        raise NotHere(f"no counters (exit status {code}): {' '.join(lines) or text[-500:]}")
    return {**about_shape(shape, device), "kernels": kernels}
