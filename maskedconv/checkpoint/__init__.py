"""Checkpoints: the learned part of a model in one safetensors file."""

from maskedconv.checkpoint.save_load import load, load_plain, read_notes, save

__all__ = ["load", "load_plain", "read_notes", "save"]
