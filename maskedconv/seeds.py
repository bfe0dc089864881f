"""Seeds that are made of other seeds."""

from __future__ import annotations

import numpy as np


def mixed_seed(seed: int, index: int) -> int:
    """The seed of one of several things that are drawn from ``seed``; at least 0.

    ``seed + index`` would give neighbouring seeds nearly the same values.

    Args:
        index: which of them, at least 0.
    """
    # Of a negative seed, what torch.manual_seed makes of it.
    mixed = np.random.SeedSequence([seed if seed >= 0 else seed % 2**64, index])
    return int(mixed.generate_state(1, np.uint64)[0]) >> 1
