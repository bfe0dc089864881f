"""Checkpoints: the learned part of a model in one safetensors file."""

from maskedconv.checkpoint.loading import load, read_notes
from maskedconv.checkpoint.plain import load_plain
from maskedconv.checkpoint.saving import save

__all__ = ["load", "load_plain", "read_notes", "save"]
