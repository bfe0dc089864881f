"""weight_grad on the CPU for maps of few pixels: the kernel joins their rows."""

from __future__ import annotations

import pytest
import torch
from test_weight_grad import DTYPES, check, make_problem

KERNELS = {
    "3x3": ((3, 3), (1, 1), (1, 1), (1, 1)),
    "3x3 unpadded": ((3, 3), (1, 1), (0, 0), (1, 1)),
    "3x3 widely padded": ((3, 3), (1, 1), (4, 5), (1, 1)),
    "5x5": ((5, 5), (1, 1), (2, 2), (1, 1)),
    "2x4": ((2, 4), (1, 1), (1, 2), (1, 1)),
    "7x7": ((7, 7), (1, 1), (3, 3), (1, 1)),
    "1x1/2": ((1, 1), (2, 2), (0, 0), (1, 1)),
    "1x1/3x2": ((1, 1), (3, 2), (0, 0), (1, 1)),
    "1x1/2 padded": ((1, 1), (2, 2), (1, 1), (1, 1)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 1), (2, 1), (5, 16), (2, 17)], ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_many_channels(kernel, size, dtype):
    """The kernel may be wider than the map; 17 columns are not joined."""
    (rows, columns), _, padding, _ = KERNELS[kernel]
    if size[0] + 2 * padding[0] < rows or size[1] + 2 * padding[1] < columns:
        pytest.skip("the kernel does not fit the padded map")
    for channels, filters, prologue in [(64, 17, False), (70, 3, False), (65, 4, True)]:
        problem = make_problem(KERNELS[kernel], channels, filters, size, 3, dtype, prologue)
        check("native", problem)


@pytest.mark.parametrize(("channels", "filters"), [(1060, 2), (64, 350), (1030, 346)])
def test_more_channels_and_filters_than_are_packed_at_once(channels, filters):
    """Tiles of AMX pack 1024 channels and 1024 columns, three a filter."""
    problem = make_problem(KERNELS["3x3"], channels, filters, (3, 5), 2, torch.bfloat16)
    check("native", problem)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", ["3x3", "1x1/2"])
@pytest.mark.parametrize("layout", ["dense", "cropped", "contiguous gradient", "one image"])
def test_layouts(layout, kernel, dtype):
    """Rows follow one another, or there are other pixels between; channels of the gradient do not
    lie side by side.
    """
    problem = make_problem(KERNELS[kernel], 80, 20, (6, 7), 5, dtype)
    if layout == "dense":
        dense = problem.input.contiguous(memory_format=torch.channels_last)
        problem = problem._replace(input=dense)
    elif layout == "cropped":
        wide = make_problem(KERNELS[kernel], 80, 20, (9, 11), 5, dtype).input
        problem = problem._replace(input=wide[:, :, 1:7, 2:9])
    elif layout == "contiguous gradient":
        problem = problem._replace(grad_output=problem.grad_output.contiguous())
    else:
        problem = problem._replace(input=problem.input[:1], grad_output=problem.grad_output[:1])
    check("native", problem)
