"""Runs the emulated weight_grad kernel on tensors that end, or begin, at forbidden memory.

``python guarded_kernel.py LIBRARY`` ends by a signal where the kernel reads or writes outside of a
tensor; with ``beyond`` as a second argument it does so itself.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from itertools import product

import emulation
import torch
from test_cuda_emulation import (
    CASES,
    DTYPES,
    TOLERANCE,
    error_of,
    make_fast_problem,
    make_problem,
)
from test_cuda_fast_path import FAST_CASES

_NO_ACCESS = 0  # PROT_NONE of mmap(2)
_held = []


def guarded(tensor, at_end, alignment=1):
    """A copy of ``tensor`` with its strides, whose memory ends or begins at a forbidden page.

    It ends up to ``alignment`` - 1 bytes before, so that it begins at a multiple of that.
    """
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    size = span * tensor.element_size()
    pages = math.ceil(size / mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
    _held.append(memory)
    start = mmap.PAGESIZE + (pages * mmap.PAGESIZE - size if at_end else 0)
    start -= start % alignment
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=span, offset=start)
    first = flat.data_ptr() - start
    for page in (0, pages + 1):
        address = ctypes.c_void_p(first + page * mmap.PAGESIZE)
        assert ctypes.CDLL(None).mprotect(address, mmap.PAGESIZE, _NO_ACCESS) == 0
    return flat.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


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


def touch_beyond():
    """Reads the byte before a tensor."""
    return ctypes.c_char.from_address(guarded(torch.zeros(3), at_end=False).data_ptr() - 1).value


if __name__ == "__main__":
    touch_beyond() if sys.argv[2:] == ["beyond"] else run_every_case(sys.argv[1])
    print("inside")
