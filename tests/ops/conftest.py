"""Fixtures of several tests of the operators."""

import emulation
import pytest
from pretended_gpu import emulated_module, pretended_gpu

__all__ = ["emulated_module", "pretended_gpu"]


@pytest.fixture(scope="session")
def wgmma_library(tmp_path_factory):
    """The emulation of ``csrc/weight_grad/wgmma``."""
    return emulation.build("weight_grad/wgmma", tmp_path_factory.mktemp("wgmma"))
