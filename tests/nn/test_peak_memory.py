"""The peak memory in a run's row, on CUDA without the memory for timing kernels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from maskedconv.runs import peak_memory
from maskedconv.runs.peak_memory import forgetting_the_first_peak


@pytest.mark.parametrize(
    ("stored", "epochs", "after"),
    [(0, 1, []), (0, 2, [1]), (0, 5, [1]), (1, 5, [2]), (3, 5, [4]), (4, 5, []), (5, 5, [])],
)
def test_the_peak_on_cuda_counts_from_the_second_trained_epoch(monkeypatch, stored, epochs, after):
    resets, told = [], []
    monkeypatch.setattr(peak_memory, "reset_peak", lambda _: resets.append(len(told) + 1))
    on_epoch = forgetting_the_first_peak(told.append, torch.device("cuda"), stored, epochs)
    history = [SimpleNamespace(epoch=epoch) for epoch in range(1, epochs + 1)]
    for epoch in history:
        on_epoch(epoch)
    assert resets == after
    assert told == history


def test_on_the_cpu_nothing_is_reset():
    function = print
    assert forgetting_the_first_peak(function, torch.device("cpu"), 0, 3) is function
