"""The tokens that every vocabulary begins with. Does not import torch."""

from __future__ import annotations

PAD, BOS, EOS = 0, 1, 2
"""Padding behind a sequence, the start of a translation, and its end."""
