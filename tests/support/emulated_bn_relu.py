"""bn_relu's CUDA kernels, compiled for the CPU, on tensors: statistics, forward and backward."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from emulation import TYPES, pointer
from strides import strided_copy

from maskedconv.ops.geometry import pixel_pitch

EPS, MOMENTUM = 1e-3, 0.1


class _Pixels(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("pitch", ctypes.c_int64))


class _Norm(ctypes.Structure):
    _fields_ = (
        ("seed", ctypes.c_uint), ("type", ctypes.c_int), ("channels", ctypes.c_int),
        ("multiprocessors", ctypes.c_int), ("pixels", ctypes.c_int64), ("x", _Pixels),
        ("statistics", ctypes.c_void_p), ("sums", ctypes.c_void_p), ("counters", ctypes.c_void_p),
    )  # fmt: skip


class _Parameters(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "mean", "var", "batches")),
        ("momentum", ctypes.c_float), ("eps", ctypes.c_float),
    )  # fmt: skip


class _Gradients(ctypes.Structure):
    _fields_ = (
        ("grad_x", _Pixels), ("added", _Pixels), ("grad_weight", ctypes.c_void_p),
        ("grad_bias", ctypes.c_void_p), ("uses_batch_stats", ctypes.c_bool),
        ("coefficients", ctypes.c_void_p),
    )  # fmt: skip


class _Sum(ctypes.Structure):
    _fields_ = (("summand", _Pixels), ("total", _Pixels))


class Results(NamedTuple):
    """Results of all kernels on one problem.

    Attributes:
        statistics, mean, var: of the input, and the running ones that they have moved from 0 and 1.
        of_moments: the statistics once more, of known mean and variance.
        forward: the activation.
        total, of_sum: the sum of input and gradient, and its statistics.
        added_to: the gradient of the input, added to that of the result in its memory.
        added: the same in other memory.
        grad_x, grad_weight, grad_bias: the gradients.
    """

    statistics: torch.Tensor
    mean: torch.Tensor
    var: torch.Tensor
    of_moments: torch.Tensor
    forward: torch.Tensor
    total: torch.Tensor
    of_sum: torch.Tensor
    added_to: torch.Tensor
    added: torch.Tensor
    grad_x: torch.Tensor
    grad_weight: torch.Tensor
    grad_bias: torch.Tensor


def _pixels(images):
    return _Pixels() if images is None else _Pixels(images.data_ptr(), pixel_pitch(images))


def check_gaps(images):
    """RuntimeError unless there are zeros between the pixels, as in new memory."""
    channels, pitch = images.size(1), pixel_pitch(images)
    pixels = images.numel() // channels
    if images.as_strided((pixels - 1, pitch), (pitch, 1))[:, channels:].any():
        raise RuntimeError("a kernel has written between the pixels")


class BNReluEmulation:
    """The kernels for a GPU with this number of multiprocessors.

    Args:
        place: gives the copy of a tensor that the kernels get, in memory of the test's choice.
            What they must write starts as NaN, and memory between pixels as 0.
    """

    def __init__(self, library, multiprocessors=2, place=strided_copy):
        self.library, self.multiprocessors, self.place = library, multiprocessors, place
        library.emulated_error.restype = ctypes.c_char_p

    def run(self, problem, grad, seed=0):
        """Results; RuntimeError if a kernel failed."""
        statistics, mean, var, _ = self._statistics(problem, seed)
        of_sum, _, _, total = self._statistics(problem, seed, summand=grad)
        added_to, added = (
            self._backward(problem, grad, seed, added=grad, in_place=in_place)[0]
            for in_place in (True, False)
        )
        return Results(
            statistics, mean, var, self._of_moments(problem, seed), self._forward(problem, seed),
            total, of_sum, added_to, added, *self._backward(problem, grad, seed),
        )  # fmt: skip

    def blocks(self, problem):
        """Number of blocks over the pixels, in the kernels that add up."""
        norm, *_ = self._norm(problem, None, 0)
        return self._workspace(norm)[0] // (2 * norm.channels + 1)

    def _workspace(self, norm):
        """The numbers of sums and of counters."""
        sizes = ctypes.c_int64(), ctypes.c_int64()
        self.library.emulated_workspace(*map(ctypes.byref, (norm, *sizes)))
        return [size.value for size in sizes]

    def _new(self, *shape):
        return self.place(torch.full(shape, torch.nan))

    def _norm(self, problem, statistics, seed):
        """The arguments of every function, and the tensors that they point to."""
        x = self.place(problem.input)
        channels, pixels = x.size(1), x.numel() // x.size(1)
        norm = _Norm(seed, TYPES[x.dtype], channels, self.multiprocessors, pixels)
        num_sums, num_counters = self._workspace(norm)
        sums = self._new(num_sums)
        counters = torch.full((num_counters,), 7, dtype=torch.int32)  # left by other work
        counters = self.place(counters)
        norm.x = _pixels(x)
        norm.statistics = pointer(statistics)
        norm.sums, norm.counters = pointer(sums), pointer(counters)
        return norm, x, sums, counters

    def _call(self, name, arguments, *others):
        norm, *_ = arguments
        if getattr(self.library, name)(ctypes.byref(norm), *others):
            raise RuntimeError(self.library.emulated_error().decode())

    def _parameters(self, problem):
        channels = problem.input.size(1)
        weight, bias = (None if part is None else self.place(part) for part in problem.norm[:2])
        mean = self.place(torch.zeros(channels))
        var = self.place(torch.ones(channels))
        batches = self.place(torch.zeros(1, dtype=torch.int64))
        tensors = (weight, bias, mean, var, batches)
        return _Parameters(*map(pointer, tensors), MOMENTUM, EPS), tensors

    def _statistics(self, problem, seed, summand=None):
        out = self._new(5, problem.input.size(1))
        parameters, (*_, mean, var, batches) = self._parameters(problem)
        total = None
        if summand is not None:
            summand = self.place(summand)
            total = self.place(strided_copy(summand).fill_(torch.nan))
        self._call(
            "emulated_statistics", self._norm(problem, out, seed),
            ctypes.byref(_Sum(_pixels(summand), _pixels(total))), ctypes.byref(parameters),
        )  # fmt: skip
        assert int(batches) == 1
        if total is not None:
            check_gaps(total)
        return out, mean, var, total

    def _of_moments(self, problem, seed):
        out = self._new(5, problem.input.size(1))
        moments = self.place(problem.norm.statistics[:2])
        parameters, _tensors = self._parameters(problem)
        self._call(
            "emulated_statistics_of_moments", self._norm(problem, out, seed), pointer(moments),
            ctypes.byref(parameters),
        )  # fmt: skip
        return out

    def _forward(self, problem, seed):
        statistics = self.place(problem.norm.statistics)
        out = self.place(strided_copy(problem.input).fill_(torch.nan))
        arguments = self._norm(problem, statistics, seed)
        self._call("emulated_forward", arguments, ctypes.byref(_pixels(out)))
        check_gaps(out)
        return out

    def _backward(self, problem, grad, seed, added=None, in_place=False):
        channels = problem.input.size(1)
        statistics, given = self.place(problem.norm.statistics), self.place(grad)
        added = None if added is None else self.place(added)
        grad_x = added if in_place else self.place(strided_copy(grad).fill_(torch.nan))
        grad_weight, grad_bias = self._new(channels), self._new(channels)
        coefficients = self._new(2, channels)
        gradients = _Gradients(
            _pixels(grad_x), _pixels(added), pointer(grad_weight),
            pointer(grad_bias), problem.norm.uses_batch_stats, pointer(coefficients),
        )  # fmt: skip
        self._call(
            "emulated_backward", self._norm(problem, statistics, seed),
            ctypes.byref(_pixels(given)), ctypes.byref(gradients),
        )  # fmt: skip
        check_gaps(grad_x)
        return grad_x, grad_weight, grad_bias
