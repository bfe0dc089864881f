"""Checkpoints: the learned part of a model in one safetensors file, or in shards."""

from maskedconv.checkpoint.save_load import load, load_plain, read_notes, save
from maskedconv.checkpoint.sharded import load_sharded, save_sharded

__all__ = ["load", "load_plain", "load_sharded", "read_notes", "save", "save_sharded"]
