"""Training runs: configuration, execution, result rows and the output folder.

Independent of papers and commands.
"""

from __future__ import annotations

from maskedconv.runs.config import RunConfig
from maskedconv.runs.store import Store, StoreError

__all__ = ["RunConfig", "Store", "StoreError"]
