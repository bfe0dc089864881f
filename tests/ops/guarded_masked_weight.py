"""Runs the emulated masked_weight kernels on tensors that end, or begin, at forbidden memory.

``python guarded_masked_weight.py LIBRARY`` ends by a signal if a kernel reads or writes outside
of a tensor, or with status 1 if its numbers are wrong. With a number as a second argument, that
bound of a ``Breakable`` library is exceeded.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from itertools import product

import torch
from emulated_masked_weight import MaskedWeightEmulation
from guarded_memory import guarded
from supermasks import SCORES, check_weights, kept_by_sort, mask_of

from maskedconv.ops.masked_weight import ThresholdProblem

SHAPES = ((5, 7, 3, 3), (4, 8, 3, 3), (3,), (41, 200))


def run_every_case(library):
    """Both ends; addresses of any alignment, and of the widest vectors."""
    for at_end, alignment in product((True, False), (1, 16)):
        place = functools.partial(guarded, at_end=at_end, alignment=alignment)
        kernels = MaskedWeightEmulation(library, place)
        for shape, scores in product(SHAPES, ("ties", "normal")):
            torch.manual_seed(0)
            score, weight = SCORES[scores](shape), torch.randn(shape)
            num_kept = score.numel() // 3
            threshold = kernels.find_threshold(ThresholdProblem(score, num_kept))
            mask = kept_by_sort(score, num_kept)
            assert torch.equal(mask_of(score, threshold), mask)
            check_weights(kernels, weight, score, threshold, mask)


if __name__ == "__main__":
    compiled = ctypes.CDLL(sys.argv[1])
    if len(sys.argv) > 2:
        compiled.exceed_bound(int(sys.argv[2]))
    run_every_case(compiled)
    print("inside")
