// How weight_grad is divided among blocks, warps and tiles of pixels. Host code, no CUDA.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/divisor.h"
#include "weight_grad/weight_grad.h"

namespace maskedconv {

constexpr int kTilePixels = 64; // input pixels of a tile
constexpr int kStages = 3;      // tiles in shared memory
constexpr int kColumns = 9;     // of 8 filters of one tap, that a warp adds up: all of 3 x 3
constexpr int kPitchPad = 8;    // elements; keeps 8 rows in different banks

// A column is one tap of 8 filters: columns are numbered (filter / 8) * taps + tap.
struct Plan {
    // A tile: images x rows x columns of input pixels, and the part of grad_output that meets them,
    // spread out to the input's resolution: halo_rows x halo_columns of each image.
    int images, rows, columns, halo_rows, halo_columns;
    // Pixels are ordered by (row, column) modulo these, so that the pixels of one step meet the
    // same taps of a strided convolution.
    int phase_rows, phase_columns;
    Divisor row_tiles, column_tiles; // of an image
    int64_t tiles;
    int m_tiles;                        // 16s of channels that a warp owns
    int channel_warps, column_warps;    // of a block: positions, of each of which there are
    int pixel_warps;                    // so many warps, that share a tile's pixels
    int channel_blocks, column_blocks;  // of the grid
    int grad_blocks;                    // 8s of filters that a block keeps in shared memory
    int splits;                         // of the tiles, over the grid
    int tiles_per_split, longer_splits; // so many splits, the first ones, have one tile more
    int shared_bytes;                   // 0: does not fit
    // For the kernel, which divides by nothing else: taps of the kernel and of a row of it; pixels
    // of a phase of the tile, of an image in it, of a row in that, and phases in a row of phases;
    // halo pixels of an image and of a row; the stride.
    Divisor taps, taps_across, phase_pixels, image_pixels, row_pixels, phases_across, halo_image,
        halo_row, stride_rows, stride_columns;
    Divisor positions, channel_positions; // of warps in a block

    constexpr int threads() const { return channel_warps * column_warps * pixel_warps * 32; }
    constexpr int block_channels() const { return channel_warps * m_tiles * 16; }
    constexpr int x_pitch() const { return block_channels() + kPitchPad; }
    constexpr int grad_pitch() const { return (grad_blocks | 1) * 8; }
    constexpr int halo() const { return images * halo_rows * halo_columns; }
    // Tiles start at multiples of the stride.
    constexpr bool ordered() const {
        return phase_rows == stride_rows.value() && phase_columns == stride_columns.value();
    }
};

// The most warps of a block if each owns `m_tiles` 16s of channels: registers allow no more.
constexpr int max_warps(int m_tiles) { return m_tiles == 2 ? 12 : 8; }

constexpr int kPixelBytes = 16, kHaloBytes = 16; // entries of the tables in shared memory

inline int element_bytes(ElementType type) { return type == ElementType::float32 ? 4 : 2; }

// Tiles that load few bytes: few unused pixels, small halo.
inline void choose_tile(const WeightGrad& p, Plan& plan) {
    const bool ordered = p.stride.rows * p.stride.columns <= kTilePixels;
    const int64_t row_step = ordered ? p.stride.rows : 1;
    const int64_t column_step = ordered ? p.stride.columns : 1;
    const int64_t filters = ceil_div(p.filters, 8) * 8;
    int64_t least = -1;
    for (int64_t columns = column_step; columns * row_step <= kTilePixels; columns += column_step) {
        const int64_t most_rows = kTilePixels / columns / row_step * row_step;
        const int64_t row_tiles = ceil_div(p.input.rows, most_rows);
        const int64_t rows = ceil_div(ceil_div(p.input.rows, row_tiles), row_step) * row_step;
        const int64_t column_tiles = ceil_div(p.input.columns, columns);
        const bool whole = row_tiles * column_tiles == 1;
        const int64_t images = whole ? std::min(kTilePixels / (rows * columns), p.batch) : 1;
        const int64_t halo_rows = rows + (p.kernel.rows - 1) * p.dilation.rows;
        const int64_t halo_columns = columns + (p.kernel.columns - 1) * p.dilation.columns;
        const int64_t tiles = ceil_div(p.batch, images) * row_tiles * column_tiles;
        const int64_t cost =
            tiles * (kTilePixels * p.channels + images * halo_rows * halo_columns * filters);
        if (least < 0 || cost < least) {
            least = cost;
            plan.images = images, plan.rows = rows, plan.columns = columns;
            plan.halo_rows = halo_rows, plan.halo_columns = halo_columns;
            plan.row_tiles = Divisor(row_tiles), plan.column_tiles = Divisor(column_tiles);
            plan.tiles = tiles;
        }
        if (columns >= p.input.columns)
            break;
    }
    plan.phase_rows = row_step, plan.phase_columns = column_step;
}

// Shared memory of a block, in bytes: tables and tiles, and later, in place of the tiles, the sums
// of one of the warps that share a position.
inline int64_t shared_bytes(const Plan& plan, ElementType type) {
    const int64_t halo = plan.halo(), tables = kTilePixels * kPixelBytes + halo * kHaloBytes;
    const int64_t stage = kTilePixels * plan.x_pitch() + halo * plan.grad_pitch();
    const int64_t lanes = int64_t{plan.channel_warps} * plan.column_warps * 32;
    const int64_t sums = plan.pixel_warps > 1 ? lanes * plan.m_tiles * kColumns * 4 : 0;
    return tables + std::max<int64_t>(kStages * stage * element_bytes(type), sums * 4);
}

// The largest block within `limit` bytes and `most_channel_warps`, with as many columns as
// possible: x is then read once.
inline bool choose_block(const WeightGrad& p, ElementType type, int64_t limit,
                         int64_t most_channel_warps, Plan& plan) {
    const int64_t taps = p.kernel.rows * p.kernel.columns, filter_blocks = ceil_div(p.filters, 8);
    const int64_t column_groups = ceil_div(filter_blocks * taps, kColumns);
    const int64_t channel_groups = ceil_div(p.channels, plan.m_tiles * 16);
    const int64_t most_channels = std::min(channel_groups, most_channel_warps);
    const int most = max_warps(plan.m_tiles);
    for (int warps = std::min<int64_t>(most, column_groups); warps >= 1; --warps) {
        plan.column_blocks = ceil_div(column_groups, warps);
        plan.column_warps = ceil_div(column_groups, plan.column_blocks);
        const int64_t columns = plan.column_warps * kColumns;
        const int64_t touched = columns % taps ? (columns + taps - 2) / taps + 1 : columns / taps;
        plan.grad_blocks = std::min(touched, filter_blocks);
        for (int c = std::min<int64_t>(most / plan.column_warps, most_channels); c >= 1; --c) {
            plan.channel_blocks = ceil_div(channel_groups, c);
            plan.channel_warps = ceil_div(channel_groups, plan.channel_blocks);
            const int positions = plan.channel_warps * plan.column_warps;
            plan.pixel_warps = positions * 4 <= most ? 4 : positions * 2 <= most ? 2 : 1;
            if (shared_bytes(plan, type) <= limit) {
                plan.shared_bytes = shared_bytes(plan, type);
                return true;
            }
        }
    }
    return false;
}

inline void set_divisors(const WeightGrad& p, Plan& plan) {
    plan.taps = Divisor(p.kernel.rows * p.kernel.columns);
    plan.taps_across = Divisor(p.kernel.columns);
    const int rows = plan.rows / plan.phase_rows, columns = plan.columns / plan.phase_columns;
    plan.phase_pixels = Divisor(plan.images * rows * columns);
    plan.image_pixels = Divisor(rows * columns), plan.row_pixels = Divisor(columns);
    plan.phases_across = Divisor(plan.phase_columns);
    plan.halo_image = Divisor(plan.halo_rows * plan.halo_columns);
    plan.halo_row = Divisor(plan.halo_columns);
    plan.stride_rows = Divisor(p.stride.rows), plan.stride_columns = Divisor(p.stride.columns);
}

// How many blocks share the tiles; none if a grid does not hold them. With two tiles or more, a
// block loads while it multiplies.
inline void choose_splits(Plan& plan, int multiprocessors) {
    constexpr int64_t kMinTiles = 2; // of a split
    // Registers allow two blocks on a multiprocessor if they are small.
    const int resident = plan.threads() * 2 <= max_warps(plan.m_tiles) * 32 ? 2 : 1;
    constexpr int kMostBlocks = 65535; // of a grid's second and third dimension
    if (std::max(plan.channel_blocks, plan.column_blocks) > kMostBlocks)
        return;
    const int64_t others = int64_t{plan.channel_blocks} * plan.column_blocks;
    const int64_t wanted = std::max<int64_t>(1, multiprocessors * resident / others);
    plan.splits = std::min(wanted, ceil_div(plan.tiles, kMinTiles));
    plan.tiles_per_split = plan.tiles / plan.splits;
    plan.longer_splits = plan.tiles % plan.splits;
    plan.positions = Divisor(plan.channel_warps * plan.column_warps);
    plan.channel_positions = Divisor(plan.channel_warps);
}

inline Plan plan_weight_grad(const WeightGrad& p, ElementType type, int multiprocessors,
                             int shared_limit) {
    constexpr int64_t kTwoBlocks = 100 * 1024; // bytes, so that a multiprocessor holds two blocks
    constexpr int64_t kMaxHalo = INT16_MAX, kMaxSize = INT32_MAX / 4; // the kernel's are of 32 bits
    Plan plan{};
    for (const int64_t size :
         {p.batch, p.channels, p.filters, p.input.rows, p.input.columns, p.output.rows,
          p.output.columns, p.padding.rows, p.padding.columns, p.stride.rows, p.stride.columns})
        if (size > kMaxSize)
            return plan;
    choose_tile(p, plan);
    if (int64_t{plan.images} * plan.halo_rows * plan.halo_columns > kMaxHalo ||
        plan.tiles > kMaxSize)
        return plan;
    set_divisors(p, plan);
    // Warps of 64 channels load less from shared memory, if that does not leave more channels idle.
    plan.m_tiles = ceil_div(p.channels, 64) * 64 == ceil_div(p.channels, 32) * 32 ? 4 : 2;
    // If there are few tiles, blocks have fewer channels: more multiprocessors have work.
    for (int channel_warps = max_warps(plan.m_tiles);; channel_warps = plan.channel_warps / 2) {
        if (!choose_block(p, type, std::min<int64_t>(kTwoBlocks, shared_limit), channel_warps,
                          plan) &&
            !choose_block(p, type, shared_limit, channel_warps, plan))
            return plan;
        choose_splits(plan, multiprocessors);
        const int64_t blocks = int64_t{plan.splits} * plan.channel_blocks * plan.column_blocks;
        if (blocks * 2 > multiprocessors || plan.channel_warps == 1)
            return plan;
    }
}

} // namespace maskedconv
