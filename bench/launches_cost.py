"""Costs of an operator on a GPU: launches, bytes and FLOPs, by its arguments."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


def size_of(tensor: Tensor) -> int:
    """Bytes of the tensor's elements."""
    return tensor.numel() * tensor.element_size()


def convolution_cost(name: str, args: Any, result: Any) -> tuple[int, int]:
    """Launches and FLOPs; one launch without FLOPs for other operators."""
    if name == "convolution":
        return 1, 2 * result.numel() * math.prod(args[1].shape[1:])
    if name == "convolution_backward":
        grad, _, weight = args[:3]
        gradients = sum(args[-1][:2])
        return sum(args[-1]), 2 * gradients * grad.numel() * math.prod(weight.shape[1:])
    return 1, 0


def weight_grad_flops(problem: Any) -> int:
    """FLOPs of the learned filters over every pixel of the output's gradient."""
    grad = problem.grad_output
    pixels = grad.numel() // grad.size(1)
    return int(2 * pixels * problem.shape.numel())


def bytes_of(name: str, launches: int, problem: Any, rest: tuple[Any, ...]) -> int:
    """Bytes that an operator of this package reads and writes in its kernels."""
    size = size_of(problem[0])
    if name == "bn_relu_backward":  # each launch reads input and gradient; one writes
        *_, memory = rest
        return 2 * launches * size + size + (0 if memory.summand is None else size)
    if name == "bn_statistics_of_sum":
        return 3 * size
    if name == "bn_relu":
        return 2 * size
    if name == "weight_grad":  # at least 32 bytes of the gradient for each pixel
        grad = problem.grad_output
        width = max(32, problem.shape[0] * grad.element_size())
        pixels = grad.numel() // grad.size(1)
        return size + pixels * width + problem.shape.numel() * 4
    if name == "pack_filters":
        tensors = [t for t in tree_leaves(tuple(problem)) if isinstance(t, Tensor)]
        return sum(map(size_of, tensors)) + math.prod(problem.shape) * problem.dtype.itemsize
    if problem.moments is not None:  # bn_statistics reads and writes some numbers a channel
        return 4 * 12 * problem[0].size(1)
    return size
