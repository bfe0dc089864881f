"""Shared by all tests: a reset of global state, and no deadlines."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# An example takes long on a busy machine, and tests assert no times.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Shells start background processes with Ctrl-C ignored; the tests of Ctrl-C need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    if "torch._dynamo" in sys.modules:
        # Otherwise the compilations of a test count towards the limit of the next one.
        torch._dynamo.reset()


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """The commands, and some tests, change the number of PyTorch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
