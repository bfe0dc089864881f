"""Timing of queued work with a simulated device: only the device's work counts."""

from __future__ import annotations

import pytest
from simulated_gpu import SimulatedQueue, Simulation

from maskedconv.ops import timing


@pytest.fixture
def simulation(monkeypatch):
    simulation = Simulation()
    monkeypatch.setattr(timing, "perf_counter", simulation.perf_counter)
    return simulation


@pytest.mark.parametrize(("python", "kernel"), [(0.1, 0.02), (5.0, 0.01), (0.01, 3.0)])
def test_python_is_not_timed(simulation, python, kernel):
    queue = SimulatedQueue(simulation)
    times = timing.queued_times(lambda: simulation.ask(python, kernel), queue, 7)
    assert times.held
    assert times.milliseconds == pytest.approx([kernel] * 7)


def test_a_queue_that_runs_dry_is_reported(simulation):
    queue = SimulatedQueue(simulation, longest_sleep=0.0)
    times = timing.queued_times(lambda: simulation.ask(0.1, 0.02), queue, 7)
    assert not times.held
    assert times.milliseconds == pytest.approx([0.12] + [0.1] * 6)


def test_a_longer_sleep_is_tried(simulation):
    """The first repetitions launch the kernel faster than the later ones."""
    calls = []

    def run():
        calls.append(None)
        simulation.ask(0.1 if len(calls) <= timing.WARM_UP else 0.5, 0.02)

    times = timing.queued_times(run, SimulatedQueue(simulation), 10)
    assert times.held
    assert times.milliseconds == pytest.approx([0.02] * 10)
    assert len(simulation.sleeps) == 2


def test_what_goes_between_is_not_timed(simulation):
    queue = SimulatedQueue(simulation)
    times = timing.queued_times(
        lambda: simulation.ask(0.1, 0.02), queue, 7, lambda: simulation.ask(0.1, 1.0)
    )
    assert times.milliseconds == pytest.approx([0.02] * 7)
