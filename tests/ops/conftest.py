"""Fixtures of several tests of the operators."""

from pretended_gpu import emulated_module, pretended_gpu

__all__ = ["emulated_module", "pretended_gpu"]
