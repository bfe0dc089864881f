"""The paper's experiments, each as the runs it is made of."""

from __future__ import annotations

from maskedconv.experiments.registry import EXPERIMENTS, Experiment

__all__ = ["EXPERIMENTS", "Experiment"]
