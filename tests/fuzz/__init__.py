"""A differential fuzzer: random layers and networks against plain PyTorch modules in float64.

``python -m tests.fuzz --minutes 5``; a case that fails is printed as a script.
"""

from tests.fuzz.cases import Case
from tests.fuzz.check import check

__all__ = ["Case", "check"]
