"""Shared by all tests: small thread pools, and a reset of global state."""

from __future__ import annotations

import signal
import sys

import pytest
import torch

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Shells start background processes with Ctrl-C ignored; the tests of Ctrl-C need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    if "torch._dynamo" in sys.modules:
        # Otherwise the compilations of a test count towards the limit of the next one.
        torch._dynamo.reset()
