"""Seeds that are made of other seeds."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """The things that are drawn from one seed, so that no two of them get the same."""

    EPOCH = 0  # and the members of a run's ensemble
    LAYER = 1
    MEMBER = 2
    PROCESS = 3
    GENERATOR = 4


def mixed_seed(seed: int, index: int, purpose: Purpose) -> int:
    """The seed of one of several things that are drawn from ``seed``; at least 0.

    ``seed + index`` would give neighbouring seeds nearly the same values.

    Args:
        index: which of them, at least 0.
    """
    # A negative seed counts as torch.manual_seed counts it.
    words = [seed if seed >= 0 else seed % 2**64, index, purpose]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]) >> 1


def seed_of_32_bits(seed: int) -> int:
    """``seed`` for PyTorch's generator of the CPU, which reads 32 bits; others are mixed."""
    return seed if 0 <= seed < 2**32 else mixed_seed(seed, 0, Purpose.GENERATOR) % 2**32
