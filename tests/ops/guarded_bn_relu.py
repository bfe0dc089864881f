"""Runs the emulated bn_relu kernels on tensors that end, or begin, at forbidden memory.

``python guarded_bn_relu.py LIBRARY`` ends by a signal if a kernel reads or writes outside of a
tensor, or with status 1 if its numbers are wrong. With a number as a second argument, that bound
of a ``Breakable`` library is exceeded.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from itertools import product

import torch
from emulated_bn_relu import BNReluEmulation
from guarded_memory import guarded
from strides import strided_copy
from test_bn_relu import make_problem
from test_bn_relu_cuda import SHAPES, TOLERANCES, check_results, rounded


def run_every_case(library):
    """Both ends, every dtype and shape; addresses of any alignment, and of the widest vectors."""
    for at_end, alignment in product((True, False), (1, 16)):
        place = functools.partial(guarded, at_end=at_end, alignment=alignment)
        kernels = BNReluEmulation(library, place=place)
        for dtype, (shape, surplus) in product(TOLERANCES, SHAPES.values()):
            torch.manual_seed(0)
            problem = rounded(make_problem(shape, surplus), dtype)
            grad = strided_copy(problem.input).normal_()
            check_results(problem, grad, kernels.run(problem, grad))


if __name__ == "__main__":
    compiled = ctypes.CDLL(sys.argv[1])
    if len(sys.argv) > 2:
        compiled.exceed_bound(int(sys.argv[2]))
    run_every_case(compiled)
    print("inside")
