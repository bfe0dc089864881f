"""Fixtures of a GPU that is pretended: CUDA backends run on tensors of the CPU.

Their kernels are those of the emulation (csrc/common/emulation).
"""

from __future__ import annotations

import contextlib
import functools
from types import SimpleNamespace

import emulation
import pytest
import torch

from maskedconv.ops import native
from maskedconv.ops.bn_relu import cuda as bn_relu
from maskedconv.ops.weight_grad import gpu

LIMITS = (2, 160 * 1024)  # multiprocessors, bytes of shared memory
# These caches of the GPU's properties must not outlast it.
_REMEMBERED = (
    (bn_relu, "multiprocessors"), (gpu, "limits_of"),
)  # fmt: skip


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
    for backend, name in _REMEMBERED:
        own = functools.cache(getattr(backend, name).__wrapped__)
        monkeypatch.setattr(backend, name, own)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
