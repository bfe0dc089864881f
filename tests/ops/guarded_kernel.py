"""Runs the emulated weight_grad kernel on tensors that end, or begin, at forbidden memory.

``python guarded_kernel.py LIBRARY`` ends by a signal if the kernel reads or writes outside of a
tensor; with ``beyond`` as a second argument it does so itself.
"""

from __future__ import annotations

import ctypes
import sys
from itertools import product

import emulation
from guarded_memory import guarded, touch_beyond
from test_cuda_emulation import (
    CASES,
    DTYPES,
    TOLERANCE,
    error_of,
    make_fast_problem,
    make_problem,
)
from test_cuda_fast_path import FAST_CASES


def run_every_case(library):
    """Both ends, every dtype, with and without a gap between the pixels of the input."""
    kernel = emulation.WeightGradEmulation(ctypes.CDLL(library))
    for at_end, dtype in product((True, False), DTYPES):
        for case, pitch in product(CASES.values(), (0, 1)):
            run_guarded(kernel, make_problem(case, dtype, pitch=pitch), at_end)
        for case, pitch in product(FAST_CASES.values(), (0, 8)):
            run_guarded(kernel, make_fast_problem(case, dtype, pitch=pitch), at_end, 16)
            assert kernel.took_the_fast_path()


def run_guarded(kernel, problem, at_end, alignment=1):
    problem = problem._replace(
        input=guarded(problem.input, at_end, alignment),
        grad_output=guarded(problem.grad_output[:, : problem.shape[0]], at_end, alignment),
    )
    out = guarded(kernel.empty_result(problem), at_end)
    assert error_of(kernel.run(problem, out=out), problem) < TOLERANCE, problem.shape


if __name__ == "__main__":
    touch_beyond() if sys.argv[2:] == ["beyond"] else run_every_case(sys.argv[1])
    print("inside")
