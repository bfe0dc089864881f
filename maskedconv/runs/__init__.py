"""Training runs: their configuration, their result rows, the output folder, and how they are done.

Knows no paper and no command.
"""

from __future__ import annotations

from maskedconv.runs.config import RunConfig
from maskedconv.runs.store import Store, StoreError

__all__ = ["RunConfig", "Store", "StoreError"]
