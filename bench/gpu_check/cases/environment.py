"""Step 1: versions, the device, and its measured limits."""

from __future__ import annotations

from typing import Any

import torch

from bench.gpu_check.device import Device
from bench.timing import quantiles
from maskedconv import env
from maskedconv.ops.ranking_cache import describe

SIZES = {"cuda": (2 << 30, 8192), "cpu": (8 << 20, 128)}  # bytes copied, side of a matrix
REPETITIONS = 10


def run(case: str, device: Device, options: dict[str, Any]) -> dict[str, Any]:
    if case == "versions":
        return versions(device)
    copied, side = SIZES[device.name]
    if case == "copy":
        source = torch.ones(copied // 4, device=device.name)
        target = torch.empty_like(source)
        ms = quantiles(device.times(lambda: target.copy_(source), REPETITIONS).milliseconds)
        return {"ms": ms, "dtype": "float32", "bytes_a_second": 2e3 * source.nbytes / ms.p50}
    if case == "matrix":
        a, b = (torch.randn(side, side, device=device.name).bfloat16() for _ in range(2))
        ms = quantiles(device.times(lambda: torch.mm(a, b), REPETITIONS).milliseconds)
        return {"ms": ms, "dtype": "bfloat16", "operations_a_second": 2e3 * side**3 / ms.p50}
    value = torch.zeros(1, device=device.name)
    replay = device.capture(lambda: value.add_(1))
    times = device.times(replay, 2 * REPETITIONS)
    return {"ms": quantiles(times.milliseconds), "held": times.held, "what": "what a replay adds"}


def versions(device: Device) -> dict[str, Any]:
    found: dict[str, Any] = {
        "environment": env.collect(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    if not device.rehearsal:
        properties: Any = torch.cuda.get_device_properties(0)
        names = ("total_memory", "multi_processor_count", "L2_cache_size", "clock_rate")
        found["properties"] = {name: getattr(properties, name, None) for name in names}
        found["rankings_depend_on"] = describe(torch.device("cuda", 0))
    return found
