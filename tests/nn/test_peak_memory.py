"""The peak memory in a run's row, on CUDA without the memory for timing kernels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from maskedconv.runs import execute


@pytest.mark.parametrize(("epochs", "resets"), [(1, 0), (2, 1), (5, 1)])
def test_the_peak_on_cuda_counts_from_the_second_epoch(monkeypatch, epochs, resets):
    devices, told = [], []
    monkeypatch.setattr(execute, "_reset_peak_memory", devices.append)
    cuda = torch.device("cuda")
    on_epoch = execute._forgetting_the_first_peak(told.append, cuda, epochs)
    history = [SimpleNamespace(epoch=epoch) for epoch in range(1, epochs + 1)]
    for epoch in history:
        on_epoch(epoch)
    assert devices == [cuda] * resets
    assert told == history


def test_on_the_cpu_nothing_is_reset():
    function = print
    assert execute._forgetting_the_first_peak(function, torch.device("cpu"), 3) is function
