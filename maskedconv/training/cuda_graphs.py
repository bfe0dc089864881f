"""Captures in CUDA graphs: the recorder of ``captured_step`` on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_SYNCHRONIZED = "called a synchronizing CUDA operation"


class CudaGraphs:
    """Captures functions on a stream of its own; replays run on the current stream.

    The warm-up is on the same stream. Libraries such as cuBLAS keep memory for each stream. A
    capture must find it, because memory that is allocated during a capture belongs to the graph.

    ``torch.cuda.graph`` registers the device's random generator, so that a replay draws the numbers
    that an eager step draws.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def warm_up(self, function: Callable[[], object]) -> str:
        """Runs ``function`` on that stream; returns where it waited for the device, or ""."""
        with self._aside(), _watched() as waits:
            function()
        return waits[0] if waits else ""

    def record(self, function: Callable[[], object]) -> Callable[[], None]:
        """Captures ``function`` without executing it; returns a function that replays it."""
        graph = torch.cuda.CUDAGraph()
        # The outer context restores the stream after an error as well; torch.cuda.graph does not.
        with self._aside(), torch.cuda.graph(graph, stream=self._stream):
            function()
        return graph.replay

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """The stream is current; it starts after the work before and ends before the work after."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Lists the lines that wait for the device, as ``file:line``; issues all other warnings."""
    waits: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if _SYNCHRONIZED in str(warning.message):
            waits.append(f"{warning.filename}:{warning.lineno}")
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
