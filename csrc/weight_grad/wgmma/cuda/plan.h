// How weight_grad by wgmma is divided among tiles of pixels, blocks and clusters. Host code.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/cuda/matrix_descriptor.h"
#include "common/cuda/tensor_map.h"
#include "common/divisor.h"
#include "weight_grad/cuda/plan.h"
#include "weight_grad/cuda/weight_grad_cuda.h"

namespace maskedconv {
namespace wgmma {

// A tile: `images` x `rows` rows of 8 pixels. A row is one core matrix for each 8 filters.
constexpr int kTileColumns = 8;
constexpr int kTileRows = 8; // of all its images
constexpr int kTilePixels = kTileRows * kTileColumns;
constexpr int kGroupChannels = 64;                        // rows, or swapped columns, of a product
constexpr int kPixelBytes = kGroupChannels * kMapElement; // in shared memory, swizzled
constexpr int kXBytes = kTilePixels * kPixelBytes;        // of 64 channels
constexpr int kFilters = 8;                               // of a core matrix
constexpr int kSwizzleBytes = 1024, kCopyBytes = 128;     // alignment of the targets of copies
constexpr int kSumPitch = kGroupChannels + 4; // floats; keeps a warp's in different banks
constexpr int kMostStages = 6, kLeastStages = 2;
constexpr int kBarrierBytes = 2 * kMostStages * static_cast<int>(sizeof(uint64_t));
constexpr int kMostCluster = 8;

// Sizes that the kernel is compiled for: a kernel of side x side taps, and blocks of 8 filters.
constexpr bool is_side(int64_t side) { return side == 1 || side == 3 || side == 5; }
constexpr int most_filter_blocks(int side) { return side == 5 ? 1 : 4; }
constexpr int columns_of(int side, int filter_blocks) {
    return side * side * filter_blocks * kFilters;
}
// A block of so many filters has them as rows of its products: the roles are swapped.
constexpr int kSwappedBlocks = 8, kSwappedFilters = kSwappedBlocks * kFilters;
constexpr bool is_swapped(int filter_blocks) { return filter_blocks == kSwappedBlocks; }
// Fewer filters are not swapped: less than three quarters of the 64 rows would be of learned ones.
// More would be divided among blocks that read x again, as their sums leave room for 32.
constexpr int kLeastSwapped = 48;
// The sums of five taps, 64 x 64 each, leave no room.
constexpr bool can_swap(int64_t side) { return side != 5; }
// Warpgroups of 64 channels of a block: those that are swapped have a row of the kernel each.
constexpr int warpgroups_of(int side, int filter_blocks) {
    return is_swapped(filter_blocks) ? side : 1;
}
// The most 64s of channels of a block: its sums must leave room in the registers. A quarter of a
// multiprocessor runs one warp of each of the block's warpgroups, and one quarter also the warp
// that copies.
constexpr int most_groups(int side, int filter_blocks) {
    const int columns = columns_of(side, filter_blocks);
    return is_swapped(filter_blocks) ? 3 / side : columns <= 144 ? 3 : columns <= 200 ? 2 : 1;
}
constexpr int threads_of(int warpgroups) { return warpgroups * 128 + 32; } // and the copying warp
constexpr int most_threads(int side, int filter_blocks) {
    return threads_of(most_groups(side, filter_blocks) * warpgroups_of(side, filter_blocks));
}

struct Plan {
    int rows, images, row_bits;  // of a tile: powers of two, rows of this one
    int halo_rows, halo_columns; // of an image: the gradient's pixels that a tile meets
    Divisor row_tiles, column_tiles;
    int tiles;
    int filter_blocks, filter_groups;    // 8s of filters of a block; how many such there are
    int groups, channel_blocks;          // 64s of channels of a block; how many such there are
    int warpgroups;                      // of a block, that multiply
    int cluster, clusters;               // blocks of a cluster; clusters that share the tiles
    int tiles_per_block, longer_blocks;  // so many blocks, the first ones, have one tile more
    int stages, halo_bytes, stage_bytes; // halo_bytes: of 8 filters
    int barriers, shared_bytes;          // offset of the barriers; 0: does not fit

    // Blocks on a multiprocessor: two if they are small.
    constexpr int resident() const { return groups == 1 && filter_blocks < 4 ? 2 : 1; }
    constexpr int positions() const { return channel_blocks * filter_groups; }
    constexpr int copied_bytes() const { // of a tile
        return groups * kXBytes + filter_blocks * images * halo_rows * halo_columns * kCoreRowBytes;
    }
};

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Float sums of a block: filters x taps x channels.
inline int sums_of(const WeightGrad& p, const Plan& plan) {
    return plan.groups * kGroupChannels *
           columns_of(static_cast<int>(p.kernel.rows), plan.filter_blocks);
}

inline Box x_box(const Plan& plan) {
    return {kGroupChannels, kTileColumns, plan.rows, plan.images};
}
inline Box grad_box(const Plan& plan) {
    return {kFilters, plan.halo_columns, plan.halo_rows, plan.images};
}

inline Images x_images(const WeightGrad& p) {
    return {p.x, p.channels, p.input.columns, p.input.rows, p.batch, p.x_pixel, p.x_row, p.x_image};
}
// The learned filters alone: others are zeros for the kernel.
inline Images grad_images(const WeightGrad& p) {
    return {p.grad_output, p.filters,    p.output.columns, p.output.rows,
            p.batch,       p.grad_pixel, p.grad_row,       p.grad_image};
}

// The smallest tile that holds an image, else 8 x 8 pixels.
inline void choose_tile(const WeightGrad& p, Plan& plan) {
    plan.row_bits = 1; // two rows are the 16 pixels of a product, which must be of one image
    while (1 << plan.row_bits < std::min<int64_t>(kTileRows, p.input.rows))
        ++plan.row_bits;
    plan.rows = 1 << plan.row_bits;
    plan.images = kTileRows / plan.rows;
    plan.halo_rows = plan.rows + (p.kernel.rows - 1) * p.dilation.rows;
    plan.halo_columns = kTileColumns + (p.kernel.columns - 1) * p.dilation.columns;
    const int64_t row_tiles = ceil_div(p.input.rows, plan.rows);
    const int64_t column_tiles = ceil_div(p.input.columns, kTileColumns);
    plan.row_tiles = Divisor(row_tiles), plan.column_tiles = Divisor(column_tiles);
    plan.tiles = ceil_div(p.batch, plan.images) * row_tiles * column_tiles;
    plan.halo_bytes = round_up(box_bytes(grad_box(plan)), kCopyBytes);
}

// All filters in one block if registers allow it: x is then read once.
inline void choose_block(const WeightGrad& p, Plan& plan) {
    const int side = p.kernel.rows;
    const int64_t filter_blocks = ceil_div(p.filters, kFilters);
    plan.filter_blocks = p.filters >= kLeastSwapped && can_swap(side) ? kSwappedBlocks : 1;
    while (plan.filter_blocks < most_filter_blocks(side) && plan.filter_blocks < filter_blocks)
        plan.filter_blocks *= 2;
    plan.filter_groups = ceil_div(filter_blocks, plan.filter_blocks);
    const int64_t groups = ceil_div(p.channels, kGroupChannels);
    const int most = most_groups(side, plan.filter_blocks);
    plan.channel_blocks = ceil_div(groups, most);
    plan.groups = ceil_div(groups, plan.channel_blocks);
    plan.warpgroups = plan.groups * warpgroups_of(side, plan.filter_blocks);
}

inline void choose_stages(const WeightGrad& p, Plan& plan, int limit) {
    constexpr int kReserved = 1024; // of each block, by the system
    const int room = (limit + kReserved) / plan.resident() - kReserved - kBarrierBytes;
    const int64_t bytes = round_up(
        plan.groups * kXBytes + int64_t{plan.filter_blocks} * plan.halo_bytes, kSwizzleBytes);
    const int64_t sums = int64_t{sums_of(p, plan)} / kGroupChannels * kSumPitch * 4;
    if (bytes * kLeastStages > room || sums > room)
        return;
    plan.stage_bytes = bytes;
    plan.stages = std::min<int64_t>(kMostStages, room / bytes);
    plan.barriers = round_up(std::max(plan.stages * bytes, sums), 8);
    plan.shared_bytes = plan.barriers + kBarrierBytes;
}

// How many blocks share the tiles, two or more each: a block loads while it multiplies.
inline void choose_clusters(Plan& plan, int multiprocessors) {
    const int64_t wanted =
        std::max<int64_t>(1, int64_t{multiprocessors} * plan.resident() / plan.positions());
    const int blocks = std::min<int64_t>(wanted, ceil_div(plan.tiles, 2));
    plan.cluster = kMostCluster; // or fewer, if more than an eighth of the blocks would be lost
    while (blocks % plan.cluster * 8 > blocks)
        plan.cluster /= 2;
    plan.clusters = blocks / plan.cluster;
    plan.tiles_per_block = plan.tiles / (plan.cluster * plan.clusters);
    plan.longer_blocks = plan.tiles % (plan.cluster * plan.clusters);
}

// The plan of a problem that sizes_refusal accepts.
inline Plan make_plan(const WeightGrad& p, const CudaLimits& limits) {
    Plan plan{};
    choose_tile(p, plan);
    choose_block(p, plan);
    choose_stages(p, plan, limits.shared_bytes);
    choose_clusters(plan, limits.multiprocessors);
    return plan;
}

// Why the kernel does not take a problem of these sizes, or an empty text.
inline const char* sizes_refusal(const WeightGrad& p, ElementType type, const CudaLimits& limits) {
    constexpr int64_t kMostSize = INT32_MAX / 4; // places are of 32 bits
    if (type == ElementType::float32)
        return "it is for bfloat16 and float16";
    if (p.stride.rows != 1 || p.stride.columns != 1)
        return "it is for a stride of 1";
    if (p.kernel.rows != p.kernel.columns || !is_side(p.kernel.rows))
        return "it is for kernels of 1x1, 3x3 and 5x5";
    for (const int64_t size : {p.batch, p.channels, p.filters, p.input.rows, p.input.columns,
                               p.output.rows, p.output.columns, p.padding.rows, p.padding.columns})
        if (size > kMostSize)
            return "a size is above 2^29";
    if (p.batch * p.input.rows > kMostSize / p.input.columns)
        return "it is for at most 2^29 pixels";
    for (const int64_t dilation : {p.dilation.rows, p.dilation.columns})
        if (dilation > kMostBox)
            return "a dilation is above 256";
    Plan plan{};
    choose_tile(p, plan);
    if (plan.halo_rows > kMostBox || plan.halo_columns > kMostBox)
        return "a tile needs more than 256 rows or columns of the gradient";
    const Plan made = make_plan(p, limits);
    if (made.shared_bytes == 0)
        return "its tiles do not fit into shared memory";
    constexpr int kMostBlocks = 65535; // of a grid's second and third dimension
    if (std::max(made.channel_blocks, made.filter_groups) > kMostBlocks)
        return "its filters or channels do not fit into a grid";
    return "";
}

// Why the kernel does not take tensors of this layout, or an empty text.
inline const char* layout_refusal(const WeightGrad& p, const CudaLimits& limits) {
    const Plan plan = make_plan(p, limits);
    if (p.grad_channel != 1 && p.filters > 1)
        return "the gradient's channels do not lie side by side";
    const char* x = tensor_map_refusal(x_images(p), x_box(plan), Swizzle::bytes128);
    return *x ? x : tensor_map_refusal(grad_images(p), grad_box(plan), Swizzle::none);
}

} // namespace wgmma
} // namespace maskedconv
