"""Complete training steps of a network in several implementations."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import steps
from bench.gpu_check.device import Device
from bench.saved_bytes import of_network
from bench.timing import quantiles
from maskedconv.ops.dispatch import forget_decisions, recorded_decisions
from maskedconv.ops.measured import WrongKernel

LEARNED = 0.1
BATCH = {"cuda": 128, "cpu": 2}
REPETITIONS = {"cuda": 20, "cpu": 2}
NAMES = {"ours": "maskedconv", "plain": "conv2d", "slice": "sliced backward"}


class Training:
    """A network with its optimizer and one batch of noise."""

    def __init__(self, network: str, implementation: str, compiled: bool, device: Device) -> None:
        self._device, self._compiled = device, compiled
        name = NAMES[implementation]
        self.model, forward = steps.make(name, network, LEARNED, "random", device.name)
        self._forward = torch.compile(forward, backend=device.compiler) if compiled else forward
        learned = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.SGD(learned, lr=1e-3, momentum=0.9, weight_decay=5e-4)
        generator = torch.Generator().manual_seed(0)
        batch = BATCH[device.name]
        images = torch.randn(batch, 3, 32, 32, generator=generator).to(device.name)
        self._images = images.to(memory_format=torch.channels_last)
        self._labels = torch.randint(10, (batch,), generator=generator).to(device.name)

    def forward(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits, under autocast."""
        with torch.autocast(self._device.name, torch.bfloat16):
            return self._forward(model, images)

    def forget_gradients(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Forward, backward and the optimizer's step."""
        self.forget_gradients()
        F.cross_entropy(self.forward(self.model, self._images).float(), self._labels).backward()
        self._optimizer.step()

    def saved_bytes(self) -> int:
        """Bytes saved for backward, from hooks; if compiled, from the allocator, because hooks
        would trigger a recompilation.
        """
        if self._compiled:
            before = self._device.allocated()
            output = self.forward(self.model, self._images)
            return self._device.allocated() - before - output.nbytes
        return of_network(self.model, self._images, lambda model, x: self.forward(model, x).float())


def decided(step: Callable[[], object]) -> dict[str, Any]:
    """Runs a step; returns its backends, with the reasons, and the warnings.

    Backends are chosen anew, so that a kernel that an earlier case found wrong is found again.
    """
    forget_decisions()
    with warnings.catch_warnings(record=True) as caught, recorded_decisions() as decisions:
        warnings.simplefilter("always")
        step()
    backends: dict[str, Counter[str]] = {}
    for decision in decisions:
        backends.setdefault(decision.operator, Counter())[decision.backend] += 1
    row: dict[str, Any] = {
        "backends": backends,
        "decisions": Counter(map(str, decisions)),
        "warnings": list(dict.fromkeys(str(warning.message) for warning in caught)),
    }
    wrong = [str(w.message) for w in caught if issubclass(w.category, WrongKernel)]
    return row | ({"status": "wrong", "why": wrong[0]} if wrong else {})


def measure(training: Training, mode: str, device: Device) -> dict[str, Any]:
    """The backends of a step, its time, the peak memory after warm-up, and the bytes that autograd
    saves. The status is "wrong" if a wrong kernel was left out.
    """
    count, decisions = REPETITIONS[device.name], decided(training.step)
    if mode == "graph":
        step: Callable[[], object] = device.capture(training.step, training.forget_gradients)
    else:
        step = training.step
        for _ in range(device.warm_up):  # the first one times kernels, which allocates extra memory
            step()
        device.reset_peak()
    milliseconds = device.intervals(step, count)
    return {
        **decisions,
        "ms": quantiles(milliseconds),
        "peak_bytes": device.peak(),
        "saved_bytes": training.saved_bytes(),
        "learned": LEARNED,
        "batch": BATCH[device.name],
        "dtype": "bfloat16 autocast",
    }
