"""The paper's experiments: what a run is, which runs make a figure, where results are kept."""

from __future__ import annotations

from maskedconv.experiments.config import RunConfig
from maskedconv.experiments.registry import EXPERIMENTS, Experiment
from maskedconv.experiments.store import Store, StoreError

__all__ = ["EXPERIMENTS", "Experiment", "RunConfig", "Store", "StoreError"]
