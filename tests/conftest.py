"""Settings shared by all tests: small thread pools, no global state left behind."""

from __future__ import annotations

import sys

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    if "torch._dynamo" in sys.modules:
        # Else one test's compilations count towards the next one's limit.
        torch._dynamo.reset()
