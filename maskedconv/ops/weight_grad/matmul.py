"""weight_grad of 1x1 filters by PyTorch's matrix product, on views of input and gradient.

Without padding, the gradient is ``grad [pixels, n].T @ input [pixels, C]``. Pixels at equal
distances are the rows of a view, also in the first channels of a wider tensor, so nothing is
copied. On the CPU it is slower than the convolution (``bench/README.md``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskedconv.ops.geometry import pixel_pitch
from maskedconv.ops.weight_grad.problem import WeightGradProblem, outside_the_kernels

DEVICES: tuple[str, ...] = ("cuda",)
# cuBLAS promises the same bits only for one stream, or with a workspace of fixed size.
DETERMINISTIC = False


def cannot_run(problem: WeightGradProblem) -> str:
    """The reason why this is no product of views, or an empty string."""
    input, grad_output = problem.input, problem.grad_output
    rows, columns = problem.shape[2:]
    if reason := outside_the_kernels(problem):
        return reason
    if problem.scale is not None:
        return "it multiplies the input itself, not what BatchNorm and ReLU make of it"
    if (rows, columns) != (1, 1) or problem.geometry.padding != (0, 0):
        return (
            f"it is for 1x1 filters without padding, not {rows}x{columns} with "
            f"{problem.geometry.padding}"
        )
    if grad_output.dtype != input.dtype or grad_output.device != input.device:
        return (
            f"the input is {input.dtype} on {input.device}, "
            f"the gradient {grad_output.dtype} on {grad_output.device}"
        )
    if not (pixel_pitch(_read_pixels(problem)) and pixel_pitch(_learned(problem))):
        return "the pixels that it reads are not at equal distances"
    return _too_exact(problem)


def _too_exact(problem: WeightGradProblem) -> str:
    """The reason if the product would round float32 more than the convolution may."""
    backends: Any = torch.backends
    if not problem.input.is_cuda or problem.input.dtype != torch.float32:
        return ""
    if backends.cudnn.conv.fp32_precision == "tf32":
        return ""
    if backends.cuda.matmul.fp32_precision != "tf32":
        return ""
    return "matrix products compute float32 in TF32, which torch.backends.cudnn.conv forbids"


def run(problem: WeightGradProblem) -> Tensor:
    """The gradient in the dtype of ``grad_output``, channels_last."""
    grad = torch.mm(_as_rows(_learned(problem)).t(), _as_rows(_read_pixels(problem)))
    filters, channels, *_ = problem.shape
    return grad.view(filters, 1, 1, channels).permute(0, 3, 1, 2)


def _read_pixels(problem: WeightGradProblem) -> Tensor:
    """A view of every stride-th pixel of the input."""
    rows, columns = problem.geometry.stride
    return problem.input[:, :, ::rows, ::columns]


def _learned(problem: WeightGradProblem) -> Tensor:
    """A view of the gradient of the learned filters' outputs."""
    return problem.grad_output[:, : problem.shape[0]]


def _as_rows(images: Tensor) -> Tensor:
    """``[N, C, H, W]`` as ``[pixels, C]`` in the same memory."""
    channels = images.size(1)
    return images.as_strided((images.numel() // channels, channels), (pixel_pitch(images), 1))
