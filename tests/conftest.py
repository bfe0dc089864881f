"""Settings shared by all tests: small thread pools, no global state left behind."""

from __future__ import annotations

import signal
import sys

import pytest
import torch

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts what runs in the background so; tests of Ctrl-C need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    if "torch._dynamo" in sys.modules:
        # Else one test's compilations count towards the next one's limit.
        torch._dynamo.reset()
