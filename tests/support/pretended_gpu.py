"""Fixtures of a GPU that is pretended: CUDA backends run on tensors of the CPU.

Their kernels are those of the emulation (csrc/common/emulation).
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import emulation
import pytest
import torch

from maskedconv.ops import devices, native

LIMITS = (2, 160 * 1024)  # multiprocessors, bytes of shared memory


@pytest.fixture(scope="session")
def emulated_module(tmp_path_factory):
    """Result of ``emulation.build_module``."""
    return emulation.build_module(tmp_path_factory.mktemp("module"))


@pytest.fixture
def pretended_gpu(emulated_module, monkeypatch):
    """Makes the ``run`` of the CUDA backends work on the CPU; new tensors start as NaN."""
    properties = SimpleNamespace(
        multi_processor_count=LIMITS[0], shared_memory_per_block_optin=LIMITS[1]
    )
    monkeypatch.setattr(native, "module", lambda: emulated_module)
    monkeypatch.setattr(native, "why_no_code_for", lambda _: "")
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    # What is remembered of a GPU must not outlast it.
    monkeypatch.setattr(devices, "properties_of", devices.properties_of.__wrapped__)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
