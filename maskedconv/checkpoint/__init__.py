"""Checkpoints: the learned part of a model in one safetensors file, or in shards."""

from maskedconv.checkpoint.save_load import load, load_plain, save
from maskedconv.checkpoint.sharded import load_sharded, save_sharded

__all__ = ["load", "load_plain", "load_sharded", "save", "save_sharded"]
