"""Runs the emulated kernel by wgmma on tensors that end, or begin, at forbidden memory.

``python guarded_wgmma.py LIBRARY`` ends by a signal if the kernel reads or writes outside of a
tensor; with ``beyond`` as a second argument it does so itself.
"""

from __future__ import annotations

import ctypes
import sys
from itertools import product

import emulation
import torch
from guarded_kernel import run_guarded
from guarded_memory import touch_beyond
from test_wgmma_emulation import CASES, make_aligned_problem


def run_every_case(library):
    """Both ends, with and without a prologue and a gap between the pixels of the input."""
    kernel = emulation.WgmmaEmulation(ctypes.CDLL(library))
    for at_end, case, view in product((True, False), CASES.values(), (0, 8)):
        problem = make_aligned_problem(case, torch.bfloat16, prologue=view == 8, view=view)
        run_guarded(kernel, problem, at_end, alignment=16)


if __name__ == "__main__":
    touch_beyond() if sys.argv[2:] == ["beyond"] else run_every_case(sys.argv[1])
    print("inside")
