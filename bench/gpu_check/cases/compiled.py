"""Step 8: our network under torch.compile."""

from __future__ import annotations

import time
from typing import Any

from bench.gpu_check.device import Device
from bench.gpu_check.training_steps import Training, measure


def run(case: str, device: Device, options: dict[str, Any]) -> dict[str, Any]:
    training = Training(case, "ours", True, device)
    begin = time.perf_counter()
    training.step()
    device.queue.synchronize()
    about = {"network": case, "implementation": "ours compiled", "mode": "eager"}
    first = round(time.perf_counter() - begin, 1)
    return {**about, "first_step_seconds": first, **measure(training, "eager", device)}
