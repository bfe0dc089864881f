// How weight_grad is divided among blocks, warps and tiles of pixels. Host code, no CUDA.
#pragma once

#include <algorithm>
#include <cstdint>

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
    int64_t row_tiles, column_tiles, tiles;
    int m_tiles;                       // 16s of channels that a warp owns
    int channel_warps, column_warps;   // of a block: positions, of each of which there are
    int pixel_warps;                   // so many warps, that share a tile's pixels
    int channel_blocks, column_blocks; // of the grid
    int grad_blocks;                   // 8s of filters that a block keeps in shared memory
    int splits;                        // of the tiles, over the grid
    int shared_bytes;                  // 0: does not fit

    constexpr int threads() const { return channel_warps * column_warps * pixel_warps * 32; }
    constexpr int block_channels() const { return channel_warps * m_tiles * 16; }
    constexpr int x_pitch() const { return block_channels() + kPitchPad; }
    constexpr int grad_pitch() const { return (grad_blocks | 1) * 8; }
    constexpr int halo() const { return images * halo_rows * halo_columns; }
};

// The largest block of a kernel whose warps own `m_tiles` 16s of channels: registers allow no more.
constexpr int max_warps(int m_tiles) { return m_tiles == 2 ? 12 : 8; }

constexpr int kPixelBytes = 16, kHaloBytes = 8; // entries of the tables in shared memory

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
            plan.row_tiles = row_tiles, plan.column_tiles = column_tiles, plan.tiles = tiles;
        }
        if (columns >= p.input.columns)
            break;
    }
    plan.phase_rows = row_step, plan.phase_columns = column_step;
}

// Shared memory of a block, in bytes.
inline int64_t shared_bytes(const Plan& plan, ElementType type) {
    const int64_t halo = plan.halo(), tables = kTilePixels * kPixelBytes + halo * kHaloBytes;
    const int64_t stage = kTilePixels * plan.x_pitch() + halo * plan.grad_pitch();
    return ceil_div(tables, 16) * 16 + kStages * stage * element_bytes(type);
}

// The largest block within `limit` bytes, with as many columns as possible: x is then read once.
inline bool choose_block(const WeightGrad& p, ElementType type, int64_t limit, Plan& plan) {
    const int64_t taps = p.kernel.rows * p.kernel.columns, filter_blocks = ceil_div(p.filters, 8);
    const int64_t column_groups = ceil_div(filter_blocks * taps, kColumns);
    const int64_t channel_groups = ceil_div(p.channels, plan.m_tiles * 16);
    const int most = max_warps(plan.m_tiles);
    for (int warps = std::min<int64_t>(most, column_groups); warps >= 1; --warps) {
        plan.column_blocks = ceil_div(column_groups, warps);
        plan.column_warps = ceil_div(column_groups, plan.column_blocks);
        const int64_t columns = plan.column_warps * kColumns;
        const int64_t touched = columns % taps ? (columns + taps - 2) / taps + 1 : columns / taps;
        plan.grad_blocks = std::min(touched, filter_blocks);
        for (int c = std::min<int64_t>(most / plan.column_warps, channel_groups); c >= 1; --c) {
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

inline Plan plan_weight_grad(const WeightGrad& p, ElementType type, int multiprocessors,
                             int shared_limit) {
    constexpr int64_t kTwoBlocks = 100 * 1024; // bytes, so that a multiprocessor holds two blocks
    constexpr int64_t kMaxHalo = INT16_MAX, kMinTiles = 4; // of a split
    Plan plan{};
    choose_tile(p, plan);
    if (int64_t{plan.images} * plan.halo_rows * plan.halo_columns > kMaxHalo)
        return plan;
    // Warps of 64 channels load less from shared memory, if that does not leave more channels idle.
    plan.m_tiles = ceil_div(p.channels, 64) * 64 == ceil_div(p.channels, 32) * 32 ? 4 : 2;
    if (!choose_block(p, type, std::min<int64_t>(kTwoBlocks, shared_limit), plan) &&
        !choose_block(p, type, shared_limit, plan))
        return plan;
    // Registers allow two blocks on a multiprocessor if they are small.
    const int resident = plan.threads() * 2 <= max_warps(plan.m_tiles) * 32 ? 2 : 1;
    const int64_t others = int64_t{plan.channel_blocks} * plan.column_blocks;
    const int64_t wanted = std::max<int64_t>(1, multiprocessors * resident / others);
    plan.splits = std::min(wanted, ceil_div(plan.tiles, kMinTiles));
    return plan;
}

} // namespace maskedconv
