"""Shared parts of the commands: options, progress and listings."""
