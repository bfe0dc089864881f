"""The device interface of the cases: a GPU, or a CPU with stand-ins for CUDA's features."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from bench.timing import flush_cache
from maskedconv.ops.timing import CudaQueue, Times, queued_times
from maskedconv.runs.peak_memory import peak_resident, reset_peak
from maskedconv.training.cuda_graphs import CudaGraphs

Function = Callable[[], object]


class Device:
    """The interface, with the parts common to both devices."""

    name: str
    rehearsal: bool
    compiler: str  # for torch.compile
    warm_up: int  # calls before a function is measured or captured

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def times(self, function: Function, repetitions: int) -> Times:
        """Times of the work without Python, with a cold cache: queued while the device sleeps."""
        return queued_times(function, self.queue, repetitions, self.flush)

    def intervals(self, function: Function, repetitions: int) -> list[float]:
        """Milliseconds between the ends of successive calls, without waiting in between."""
        events = [self.queue.event() for _ in range(repetitions + 1)]
        self.queue.synchronize()
        events[0].record()
        for event in events[1:]:
            function()
            event.record()
        self.queue.synchronize()
        return [a.elapsed_time(b) for a, b in pairwise(events)]

    def flush(self) -> None:
        """Evicts earlier data from the cache."""
        raise NotImplementedError

    def capture(self, function: Function, prepare: Function = lambda: None) -> Function:
        """``function`` captured as a graph; the memory peak is reset after its warm-up.

        ``prepare`` is called before the capture and is not part of it.
        """
        raise NotImplementedError

    def reset_peak(self) -> None:
        raise NotImplementedError

    def peak(self) -> int:
        """Bytes."""
        raise NotImplementedError

    def allocated(self) -> int:
        """Currently allocated bytes of tensors; 0 if unknown."""
        return 0

    def free(self) -> None:
        """Returns unused memory to the device."""
        gc.collect()


class _WholeDevice(CudaQueue):
    """Waits for all streams, as errors of a case may occur on other streams."""

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._device)


class Cuda(Device):
    name, rehearsal, compiler, warm_up = "cuda", False, "inductor", 3

    def __init__(self) -> None:
        super().__init__(_WholeDevice(torch.device("cuda", torch.cuda.current_device())))

    def flush(self) -> None:
        flush_cache()

    def capture(self, function: Function, prepare: Function = lambda: None) -> Function:
        graphs = CudaGraphs(torch.device("cuda", torch.cuda.current_device()))
        for _ in range(self.warm_up):
            graphs.warm_up(function)
        prepare()
        self.reset_peak()
        return graphs.record(function)

    def reset_peak(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated()

    def allocated(self) -> int:
        return torch.cuda.memory_allocated()

    def free(self) -> None:
        super().free()
        torch.cuda.empty_cache()


class _HostEvent:
    def record(self) -> None:
        self._at = time.perf_counter()

    def query(self) -> bool:
        return False

    def elapsed_time(self, later: _HostEvent) -> float:
        return (later._at - self._at) * 1e3


class _HostQueue:
    event = _HostEvent

    def sleep(self, milliseconds: float) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Rehearsed(Device):
    name, rehearsal, compiler, warm_up = "cpu", True, "eager", 1

    def __init__(self) -> None:
        super().__init__(_HostQueue())

    def flush(self) -> None:
        torch.zeros(1024)

    def capture(self, function: Function, prepare: Function = lambda: None) -> Function:
        for _ in range(self.warm_up):
            function()
        prepare()
        self.reset_peak()
        return function

    def reset_peak(self) -> None:
        reset_peak(torch.device("cpu"))

    def peak(self) -> int:
        return peak_resident()


def open_device(rehearse: bool) -> Device:
    """The GPU, or the stand-in.

    Raises:
        RuntimeError: torch sees no GPU.
    """
    if rehearse:
        torch.set_num_threads(1)
        return Rehearsed()
    if not torch.cuda.is_available():
        raise RuntimeError("torch.cuda.is_available() is False")
    torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = True
    return Cuda()
