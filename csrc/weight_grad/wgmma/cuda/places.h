// Positions of tiles in the images, operands in shared memory, and sums in registers and in the
// gradient. Arithmetic alone, for the kernel and for the tests.
#pragma once

#include "weight_grad/wgmma/cuda/plan.h"

namespace maskedconv {
namespace wgmma {

// The first input pixel of a tile.
struct TilePlace {
    int image, row, column;
};

MASKEDCONV_BOTH TilePlace tile_place(const Plan& plan, int tile) {
    const int rest = plan.column_tiles.quotient(tile);
    return {plan.row_tiles.quotient(rest) * plan.images, plan.row_tiles.remainder(rest) * plan.rows,
            plan.column_tiles.remainder(tile) * kTileColumns};
}

// The tiles of one of the blocks that share them.
struct TileRange {
    int first, count;
};

MASKEDCONV_BOTH TileRange tiles_of(const Plan& plan, int block) {
    const int longer = block < plan.longer_blocks ? block : plan.longer_blocks;
    return {block * plan.tiles_per_block + longer,
            plan.tiles_per_block + (block < plan.longer_blocks)};
}

// The first pixel of a tile's halo in grad_output: the one that the last tap meets.
struct HaloOrigin {
    int row, column; // relative to the tile's first pixel
};

MASKEDCONV_BOTH HaloOrigin halo_origin(const WeightGrad& p) {
    return {static_cast<int>(p.padding.rows - (p.kernel.rows - 1) * p.dilation.rows),
            static_cast<int>(p.padding.columns - (p.kernel.columns - 1) * p.dilation.columns)};
}

// Offset of a pixel's channel from the swizzled tile, in bytes.
MASKEDCONV_BOTH uint32_t channel_offset(int pixel, int channel) {
    return swizzle128(static_cast<uint32_t>(pixel * kPixelBytes + channel * kMapElement));
}

// Offset of a lane's row for a step's 16 pixels x 16 channels (ldmatrix, transposed) from the
// swizzled tile, in bytes: pixels 0 to 7 or 8 to 15, channels 0 to 7 or 8 to 15.
MASKEDCONV_BOTH uint32_t x_offset(int step, int warp, int lane) {
    const int pixel = step * 16 + (lane & 7) + (lane >> 4) * 8;
    return channel_offset(pixel, warp * 16 + (lane >> 3 & 1) * 8);
}

// Rows of the tile that a step multiplies: this one and the next, of one image.
MASKEDCONV_BOTH int first_row(const Plan& plan, int step) { return step * 2 & (plan.rows - 1); }

// Offset of a step's operand of the gradient from the halo of its 8 filters, in bytes, for the last
// tap of a row of the kernel; `up`: the number of rows between that row and the last.
MASKEDCONV_BOTH int halo_offset(const Plan& plan, int step, int up, int dilation_rows) {
    const int image = step * 2 >> plan.row_bits;
    const int row = image * plan.halo_rows + first_row(plan, step) + up * dilation_rows;
    return row * plan.halo_columns * kCoreRowBytes;
}

// The operand that begins at `start`: the next 8 pixels are the next row, the next 8 columns the
// previous tap, with pixels that lie `dilation_columns` further.
MASKEDCONV_BOTH MatrixPlace halo_operand(const Plan& plan, uint32_t start, int dilation_columns) {
    return {start, static_cast<uint32_t>(plan.halo_columns * kCoreRowBytes),
            static_cast<uint32_t>(dilation_columns * kCoreRowBytes)};
}

// Offset from the last tap of a row to the tap that is `left` before it, in bytes.
MASKEDCONV_BOTH int tap_offset(int left, int dilation_columns) {
    return left * dilation_columns * kCoreRowBytes;
}

// Swapped, the gradient is the other operand: the next 8 rows are the next 8 filters. `start`
// belongs to one tap.
MASKEDCONV_BOTH MatrixPlace filters_operand(const Plan& plan, uint32_t start) {
    return {start, static_cast<uint32_t>(plan.halo_columns * kCoreRowBytes),
            static_cast<uint32_t>(plan.halo_bytes)};
}

// A step's 16 pixels of 64 channels, swizzled; there are no further channels to step to.
MASKEDCONV_BOTH MatrixPlace channels_operand(uint32_t tile, int step) {
    return {tile + static_cast<uint32_t>(step * 16 * kPixelBytes), 8 * kPixelBytes, kXBytes};
}

// Register i of a product's sums: its column, and the row within the warpgroup's 64.
MASKEDCONV_BOTH int column_of(int lane, int i) { return i / 4 * 8 + lane % 4 * 2 + i % 2; }
MASKEDCONV_BOTH int row_of(int warp, int lane, int i) {
    return warp * 16 + lane / 4 + i / 2 % 2 * 8;
}

// An element of the gradient, relative to the first filter and channel of a block.
struct SumPlace {
    int filter, row, column, channel;
};

// The element of sum number i of a block, in the order [64s of channels, 8s of filters, taps up,
// taps left, filter, channel]; swapped, all filters are one part.
template <int kSide, int kFilterBlocks> MASKEDCONV_BOTH SumPlace sum_place(int i) {
    constexpr int kColumns = columns_of(kSide, kFilterBlocks);
    constexpr int kPart = is_swapped(kFilterBlocks) ? kSwappedFilters : kFilters;
    constexpr int kRow = kSide * kPart, kBlock = kSide * kRow;
    const int column = i / kGroupChannels % kColumns;
    return {column / kBlock * kPart + column % kPart, kSide - 1 - column % kBlock / kRow,
            kSide - 1 - column % kRow / kPart,
            i / (kGroupChannels * kColumns) * kGroupChannels + i % kGroupChannels};
}

// Offset of sum number i in shared memory, in floats.
MASKEDCONV_BOTH int sum_offset(int i) {
    return i / kGroupChannels * kSumPitch + i % kGroupChannels;
}

} // namespace wgmma
} // namespace maskedconv
