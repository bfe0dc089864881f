"""masked_weight's CUDA kernels, compiled for the CPU, on tensors, as a backend."""

from __future__ import annotations

import ctypes

import torch
from emulation import TYPES, pointer
from strides import strided_copy

from maskedconv.ops.masked_weight import Threshold
from maskedconv.ops.masked_weight.layout import layout_of

PARTS = 256


class _Mask(ctypes.Structure):
    _fields_ = (
        ("seed", ctypes.c_uint), ("type", ctypes.c_int), ("sizes", ctypes.c_int64 * 4),
        ("steps", ctypes.c_int64 * 4), ("value", ctypes.c_void_p), ("first", ctypes.c_void_p),
    )  # fmt: skip


class _Tensors(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("weight", "score", "out", "parts"))


class _GradTensors(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("grad", "weight", "score", "out"))


class MaskedWeightEmulation:
    """The kernels, as the functions of a backend; RuntimeError if one fails.

    Args:
        place: gives the copy of a tensor that the kernels get, in memory of the test's choice.
            What they must write starts as NaN.
    """

    def __init__(self, library, place=strided_copy, seed=0):
        self.library, self.place, self.seed = library, place, seed
        library.emulated_error.restype = ctypes.c_char_p

    def find_threshold(self, problem):
        score = self.place(problem.score)
        counted, words = ctypes.c_int64(), ctypes.c_int64()
        self.library.emulated_space(
            ctypes.c_int64(score.numel()), ctypes.byref(counted), ctypes.byref(words)
        )
        counts = self.place(torch.zeros(counted.value, dtype=torch.int32))
        states = self.place(torch.full((words.value,), -1, dtype=torch.int32))
        value = self.place(torch.full((), torch.nan))
        first = self.place(torch.full((), -1))
        mask = self._mask(problem.score, torch.float32, value, first)
        self._call(
            "emulated_find", mask, pointer(score), ctypes.c_int64(problem.num_kept),
            pointer(counts), pointer(states),
        )  # fmt: skip
        return Threshold(value.clone(), first.clone())

    def masked_weight(self, problem):
        weight, score = self.place(problem.weight), self.place(problem.score)
        value, first = map(self.place, problem.threshold)
        out = self.place(torch.full_like(problem.weight, torch.nan, dtype=problem.dtype))
        parts = self.place(torch.full((PARTS, 2), torch.nan, dtype=torch.float64))
        tensors = _Tensors(
            pointer(weight),
            pointer(score),
            pointer(out),
            pointer(parts if problem.binary else None),
        )
        mask = self._mask(problem.weight, problem.dtype, value, first)
        self._call("emulated_mask", mask, ctypes.byref(tensors), ctypes.c_double(problem.scale))
        return out

    def score_grad(self, problem):
        read = [self.place(tensor) for tensor in problem.tensors()]
        out = self.place(torch.full_like(problem.weight, torch.nan))
        tensors = _GradTensors(*map(pointer, (*read, out)))
        mask = self._mask(problem.weight, problem.grad.dtype, None, None)
        self._call(
            "emulated_grad", mask, ctypes.byref(tensors),
            ctypes.c_bool(problem.binary), ctypes.c_float(problem.scale),
        )  # fmt: skip
        return out

    def _mask(self, tensor, dtype, value, first):
        four = ctypes.c_int64 * 4
        sizes, steps = layout_of(tensor)
        return _Mask(
            self.seed, TYPES[dtype], four(*sizes), four(*steps), pointer(value), pointer(first)
        )

    def _call(self, name, mask, *others):
        if getattr(self.library, name)(ctypes.byref(mask), *others):
            raise RuntimeError(self.library.emulated_error().decode())
