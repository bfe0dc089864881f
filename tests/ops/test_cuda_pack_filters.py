"""pack_filters' CUDA kernel, compiled for the CPU (csrc/common/emulation)."""

from __future__ import annotations

import ctypes
from itertools import product

import emulation
import pytest
import torch
from test_cuda_emulation import DTYPES

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)


@pytest.fixture(scope="module")
def pack_filters(tmp_path_factory):
    return emulation.build("pack_filters", tmp_path_factory.mktemp("pack"))


FORMATS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("formats", [*product(FORMATS, repeat=2)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("slice_dim", range(4))
def test_pack_filters(pack_filters, slice_dim, dtype, formats):
    """Frozen filters are in channels_last; learned ones and the bank are in each format."""
    for shape, n in (((6, 5, 3, 4), 2), ((6, 8, 3, 4), 1), ((40, 12, 1, 3), 1), ((3, 1, 5, 8), 1)):
        check_packed(
            pack_filters, shape, n if shape[slice_dim] > n else 0, slice_dim, dtype, formats
        )


def check_packed(pack_filters, shape, n, slice_dim, dtype, formats, offset=0):
    """Learned filters begin ``offset`` elements behind an aligned address; returns the width."""
    whole = torch.randn(shape)
    learned = whole.narrow(slice_dim, 0, n).contiguous(memory_format=formats[0])
    aligned = learned.new_empty(offset + learned.numel())
    learned = aligned[offset:].as_strided(learned.shape, learned.stride()).copy_(learned)
    frozen = whole.narrow(slice_dim, n, shape[slice_dim] - n).contiguous(
        memory_format=torch.channels_last
    )
    out = torch.full(shape, torch.nan, dtype=dtype).contiguous(memory_format=formats[1])
    pack_filters.emulated_pack_filters(
        3, emulation.TYPES[dtype], emulation.pointer(out), emulation.integers(out.stride()),
        emulation.integers(shape), emulation.pointer(learned),
        emulation.integers(learned.stride()), emulation.pointer(frozen),
        emulation.integers(frozen.stride()), ctypes.c_int64(n), slice_dim,
    )  # fmt: skip
    assert torch.equal(out, whole.to(dtype))
    return pack_filters.emulated_pack_width()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pack_filters_four_at_a_time(pack_filters, dtype):
    last, shape = (torch.channels_last,) * 2, (40, 12, 3, 3)
    for slice_dim in (0, 2, 3):
        assert check_packed(pack_filters, shape, 2, slice_dim, dtype, last) == 4
    assert check_packed(pack_filters, (40, 12, 1, 1), 4, 0, dtype, FORMATS) == 4
    assert check_packed(pack_filters, shape, 4, 1, dtype, last) == 1
    assert check_packed(pack_filters, (40, 11, 3, 3), 2, 0, dtype, last) == 1
    assert check_packed(pack_filters, shape, 2, 0, dtype, last, offset=1) == 1
    assert check_packed(pack_filters, shape, 2, 0, dtype, FORMATS) == 1
