"""A GPU's queue and a host's clock, both simulated: work is queued and runs later."""

from __future__ import annotations


class Simulation:
    """Milliseconds since the start: the host's clock, and the time when the queue is empty."""

    def __init__(self) -> None:
        self.host = self.queue = 0.0
        self.sleeps: list[float] = []

    def ask(self, python: float, kernel: float) -> None:
        """Python code of a given duration that queues a kernel of a given duration."""
        self.host += python
        self.queue = max(self.queue, self.host) + kernel

    def perf_counter(self) -> float:
        return self.host / 1e3


class Event:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def record(self) -> None:
        self.at = max(self._simulation.queue, self._simulation.host)

    def query(self) -> bool:
        return self._simulation.host >= self.at

    def elapsed_time(self, later: Event) -> float:
        return later.at - self.at


class SimulatedQueue:
    """Replaces :class:`maskedconv.ops.timing.CudaQueue`."""

    capturing = False

    def __init__(self, simulation: Simulation, longest_sleep: float = 1e9) -> None:
        self._simulation, self._longest_sleep = simulation, longest_sleep

    def event(self) -> Event:
        return Event(self._simulation)

    def sleep(self, milliseconds: float) -> None:
        self._simulation.sleeps.append(milliseconds)
        self._simulation.ask(0.0, min(milliseconds, self._longest_sleep))

    def synchronize(self) -> None:
        self._simulation.host = max(self._simulation.host, self._simulation.queue)

    def is_capturing(self) -> bool:
        return self.capturing
