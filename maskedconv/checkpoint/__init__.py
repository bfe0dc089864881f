"""Checkpoints: the learned part of a model in one safetensors file, or in shards."""

from maskedconv.checkpoint.loading import load, read_notes
from maskedconv.checkpoint.plain import load_plain
from maskedconv.checkpoint.saving import save
from maskedconv.checkpoint.sharded import load_sharded, save_sharded

__all__ = ["load", "load_plain", "load_sharded", "read_notes", "save", "save_sharded"]
