"""Tensor maps, descriptors and places of weight_grad by wgmma, against the documents' rules."""

from __future__ import annotations

import ctypes
import math
from itertools import product

import emulation
import pytest
import torch
from test_cuda_emulation import make_problem
from test_wgmma_emulation import CASES

pytestmark = pytest.mark.skipif(
    emulation.compiler() is None, reason="there is no C++ compiler to build the emulation"
)


@pytest.fixture
def library(wgmma_library):
    wgmma_library.emulated_tensor_map.restype = ctypes.c_char_p
    wgmma_library.emulated_matrix_descriptor.restype = ctypes.c_uint64
    wgmma_library.emulated_swizzled_descriptor.restype = ctypes.c_uint64
    return wgmma_library


def tensor_map(library, address, sizes, strides, box, swizzled=False):
    """The refusal, and what the driver is given: sizes, steps in bytes, box."""
    out = (ctypes.c_int64 * 11)()
    refusal = library.emulated_tensor_map(
        ctypes.c_void_p(address), emulation.integers([*sizes, *strides]), emulation.integers(box),
        int(swizzled), out,
    ).decode()  # fmt: skip
    return refusal, tuple(out[:4]), tuple(out[4:7]), tuple(out[7:])


def driver_takes(address, sizes, steps, box, swizzled):
    """The rules of cuTensorMapEncodeTiled for 16-bit elements, without interleaving.

    Source: CUDA driver API, "Tensor Map Object Management".
    """
    return (
        address % 16 == 0
        and all(1 <= size <= 2**32 for size in sizes)
        and all(step % 16 == 0 and step < 2**40 for step in steps)
        and steps[0] >= 2 * sizes[0]
        and all(steps[i] >= steps[i - 1] * sizes[i] for i in (1, 2))
        and all(1 <= part <= 256 for part in box)
        and box[0] * 2 % 16 == 0
        and (not swizzled or box[0] * 2 <= 128)
    )


SIZES = (24, 7, 5, 3)  # channels, columns, rows, images
STRIDES = (24, 24 * 7, 24 * 7 * 5)
BOX = (8, 4, 4, 2)


def replaced(values, i, value):
    return (*values[:i], value, *values[i + 1 :])


def maps():
    """One thing varies at a time."""
    usual = (4096, SIZES, STRIDES, BOX)
    for address in range(4096, 4096 + 33):
        yield (address, *usual[1:])
    for i, value in product(range(4), (0, 1, 2, 2**32, 2**32 + 1)):
        yield (4096, replaced(SIZES, i, value), STRIDES, BOX)
    for i, value in product(range(3), (0, 1, 4, 8, 16, 20, 24, 168, 840, 2**38, 2**39 - 8)):
        yield (4096, SIZES, replaced(STRIDES, i, value), BOX)
        yield (4096, replaced(SIZES, i + 1, 1), replaced(STRIDES, i, value), BOX)
    for strides in ((32, 240, 1200), (24, 176, 1000), (24, 168, 832), (24, 24, 24)):
        yield (4096, SIZES, strides, BOX)
        yield (4096, (20, *SIZES[1:]), strides, BOX)
    for i, value in product(range(4), range(258)):
        yield (4096, SIZES, STRIDES, replaced(BOX, i, value))


@pytest.mark.parametrize("swizzled", [False, True])
def test_a_map_is_refused_exactly_where_the_driver_would(library, swizzled):
    taken = 0
    for address, sizes, strides, box in maps():
        refusal, *given = tensor_map(library, address, sizes, strides, box, swizzled)
        if any(size < 1 for size in sizes):
            assert refusal
            continue
        assert given[0] == sizes
        for size, stride, step in zip(sizes[1:], strides, given[1], strict=True):
            assert size == 1 or step == 2 * stride
        assert (refusal == "") == driver_takes(address, *given, swizzled), (given, refusal)
        if not refusal:
            assert given[2] == box
        taken += refusal == ""
    assert taken > 500


def test_bits_of_a_descriptor(library):
    """PTX ISA, "Matrix Descriptor Format": start, leading and stride offset, mode of swizzling."""
    offsets = (0, 16, 128, 1024, 0x1230, 0x3FFF0)
    for start, k_step, mn_step in product(offsets, repeat=3):
        descriptor = library.emulated_matrix_descriptor(start, k_step, mn_step)
        assert descriptor & 0x3FFF == start // 16
        assert descriptor >> 16 & 0x3FFF == k_step // 16
        assert descriptor >> 32 & 0x3FFF == mn_step // 16
        assert descriptor & ~(0x3FFF | 0x3FFF << 16 | 0x3FFF << 32) == 0
        swizzled = library.emulated_swizzled_descriptor(start, k_step, mn_step)
        assert swizzled >> 62 == 1  # of 128 bytes
        assert swizzled ^ 1 << 62 == library.emulated_matrix_descriptor(start, mn_step, k_step)


def test_elements_of_an_operand(library):
    """PTX ISA, "Strides", MN-major and not swizzled; CuTe's canonical layout in units of 8
    elements is ((1, n), (8, k)) : ((-, stride), (1, leading))."""
    for k, mn in product(range(16), range(40)):
        address = library.emulated_element_address(4096, 320, 48, k, mn)
        chunk = mn // 8 * (48 // 16) + k % 8 + k // 8 * (320 // 16)
        assert address == 4096 + 16 * chunk + 2 * (mn % 8)


def test_elements_of_a_swizzled_operand(library):
    """PTX ISA, "Canonical Layouts", MN-major, 128 bytes swizzled: in units of 8 elements
    ((1, 8, n), (8, k)) : ((-, 1, leading), (8, stride)), and then Swizzle<3, 4, 3>."""
    for k, mn in product(range(16), range(128)):
        address = library.emulated_swizzled_address(4096, 2048, 8192, k, mn)
        chunk = mn // 8 % 8 + mn // 64 * (8192 // 16) + k % 8 * 8 + k // 8 * (2048 // 16)
        plain = 4096 + 16 * chunk + 2 * (mn % 8)
        assert address == plain ^ (plain >> 7 & 7) << 4


def test_swizzling(library):
    """Chunk c of row r of 128 bytes is in the place of chunk c ^ r, in each 1024 bytes."""
    for base, row, chunk, byte in product((0, 1024, 7168), range(8), range(8), (0, 2, 15)):
        place = library.emulated_swizzle(base + row * 128 + chunk * 16 + byte)
        assert place == base + row * 128 + (chunk ^ row) * 16 + byte


def test_lanes_point_at_their_rows_of_x(library):
    for step, warp in product(range(4), range(4)):
        found = [library.emulated_x_offset(step, warp, lane) for lane in range(32)]
        for lane in range(32):
            matrix, row = divmod(lane, 8)
            pixel = 16 * step + 8 * (matrix // 2) + row
            channel = 16 * warp + 8 * (matrix % 2)
            assert found[lane] == library.emulated_swizzle(pixel * 128 + channel * 2)
        for matrix in range(4):  # 8 rows of 16 bytes in the 32 banks
            assert len({found[matrix * 8 + row] % 128 for row in range(8)}) == 8


def halo_addresses(library, sizes, plan, step, up, side):
    """Left, k, filter and address of each element of a step's operand of the gradient."""
    if plan["swapped"]:
        for left, k, n in product(range(side), range(16), range(64)):
            yield left, k, n, library.emulated_filters_address(sizes, step, up, left, k, n)
    else:
        for left, k, n in product(range(side), range(16), range(8)):
            column = left * 8 + n
            yield left, k, n, library.emulated_halo_address(sizes, step, up, k, column)


def test_the_swapped_operand_of_x(library):
    """Pixel and channel, where TMA has written them."""
    for step, k, channel in product(range(4), range(16), range(64)):
        expected = library.emulated_swizzle((16 * step + k) * 128 + channel * 2)
        assert library.emulated_channels_address(step, k, channel) == expected


@pytest.mark.parametrize("name", CASES)
def test_operands_are_what_the_taps_meet(library, name):
    """Each element of each product, of some tiles."""
    kernel = emulation.WgmmaEmulation(library, 1, 2**20)
    case = CASES[name]
    problem = make_problem(case, torch.bfloat16)
    sizes, plan = kernel.sizes(problem), kernel.plan(problem)
    side, padding, dilation = case[4][0], case[6], case[7]
    rows = plan["rows"]
    halo = (rows + (side - 1) * dilation[0], 8 + (side - 1) * dilation[1])
    # A target of copies, as each 8 filters are, begins at a multiple of 128 bytes.
    halo_bytes = -(-plan["images"] * halo[0] * halo[1] * 16 // 128) * 128
    for tile in {0, plan["tiles"] // 2, plan["tiles"] - 1}:
        place = (ctypes.c_int64 * 5)()
        library.emulated_tile_place(sizes, tile, place)
        image, row, column, halo_row, halo_column = place
        tiles_across, tiles_down = math.ceil(case[3][1] / 8), math.ceil(case[3][0] / rows)
        down = tile // tiles_across
        assert column == tile % tiles_across * 8
        assert (image, row) == (down // tiles_down * plan["images"], down % tiles_down * rows)
        for step, up in product(range(4), range(side)):
            for left, k, n, address in halo_addresses(library, sizes, plan, step, up, side):
                pixel = 16 * step + k
                y, x = row + pixel // 8 % rows, column + pixel % 8
                tap = (side - 1 - up, side - 1 - left)
                out_row = y + padding[0] - tap[0] * dilation[0] - halo_row
                out_column = x + padding[1] - tap[1] * dilation[1] - halo_column
                assert 0 <= out_row < halo[0]
                assert 0 <= out_column < halo[1]
                expected = (pixel // 8 // rows * halo[0] + out_row) * halo[1] + out_column
                assert address == n // 8 * halo_bytes + expected * 16 + n % 8 * 2


@pytest.mark.parametrize(
    ("side", "filter_blocks"), [(1, 1), (1, 4), (1, 8), (3, 1), (3, 2), (3, 8), (5, 1)]
)
def test_every_sum_has_its_place(library, side, filter_blocks):
    groups, filters = 2, 8 * filter_blocks
    count = groups * 64 * filters * side * side
    elements, offsets = set(), set()
    for i in range(count):
        place = (ctypes.c_int64 * 5)()
        library.emulated_sum_place(side, filter_blocks, i, place)
        elements.add(tuple(place[:4]))
        offsets.add(place[4])
    expected = product(range(filters), range(side), range(side), range(groups * 64))
    assert elements == set(expected)
    assert len(offsets) == count
    assert max(offsets) < count // 64 * 68
