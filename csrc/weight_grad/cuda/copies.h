// How weight_grad's tiles are copied to shared memory: a thread keeps its column of channels, so
// that all its copies are the same steps apart.
#pragma once

#include "weight_grad/cuda/tiles.h"

namespace maskedconv {

// A thread's column of an operand's copies, and the first of its rows.
struct Column {
    int chunk, row;

    __device__ explicit Column(const Copies& copies)
        : chunk(copies.width.remainder(threadIdx.x)), row(copies.width.quotient(threadIdx.x)) {
        if (row >= copies.rows)
            row = INT16_MAX; // beyond all: this thread is left over
        keep(chunk), keep(row);
    }
};

// Copies `present` bytes of kBytes, and zeros after them.
template <int kBytes>
__device__ __forceinline__ void copy(void* to, const unsigned char* from, int present) {
    if constexpr (kBytes >= 4)
        copy_async<kBytes>(to, from, present);
    else
        *static_cast<uint16_t*>(to) = present ? *reinterpret_cast<const uint16_t*>(from) : 0;
}

// How many bytes of the kBytes from element `first` on lie before element `end`.
template <typename T, int kBytes> __device__ __forceinline__ int present_bytes(int first, int end) {
    constexpr int kSize = static_cast<int>(sizeof(T)), kElements = kBytes / kSize;
    const int left = end - first;
    return (left < 0 ? 0 : left < kElements ? left : kElements) * kSize;
}

// kWhole: one column a thread, all copies of kBytes.
template <typename T, int kBytes, bool kWhole>
__device__ __forceinline__ void load_x(const WeightGradArguments& a, const SharedTiles<T>& shared,
                                       const TileWalk& walk, const Column& column,
                                       int first_channel, int stage) {
    constexpr int kElements = kBytes / static_cast<int>(sizeof(T));
    const int pitch = a.plan.x_pitch(), channels = static_cast<int>(a.problem.channels);
    const uint32_t limit = walk.limit(a.problem);
    const auto load_column = [&](int chunk) {
        const int first = first_channel + chunk * kElements;
        const int present = present_bytes<T, kBytes>(first, channels);
        const unsigned char* from = walk.x + chunk * kBytes;
        T* to = shared.x(stage) + column.row * pitch + chunk * kElements;
        const TilePixel* pixel = shared.pixels + column.row;
#pragma unroll 1
        for (int row = column.row; row < kTilePixels; row += a.x.rows) {
            const bool there = inside(limit, pixel->place);
            if constexpr (kWhole)
                copy_async_or_zeros(to, from + pixel->offset, there && first < channels);
            else
                copy<kBytes>(to, from + pixel->offset, there ? present : 0);
            to += a.x.rows * pitch, pixel += a.x.rows;
        }
    };
    if constexpr (kWhole)
        load_column(column.chunk);
    else
        for (int chunk = column.chunk; chunk < a.x.chunks; chunk += a.x.width.value())
            load_column(chunk);
}

// Offset of a pixel of the halo in grad_output, in bytes from `walk.grad`, or -1 if grad_output
// does not have it; for tiles that start anywhere.
__device__ __forceinline__ int64_t divided_by_stride(const WeightGradArguments& a, int row,
                                                     int column, int64_t image, int size) {
    const Plan& plan = a.plan;
    if (row < 0 || column < 0)
        return -1;
    const int out_row = plan.stride_rows.quotient(row);
    const int out_column = plan.stride_columns.quotient(column);
    if (plan.stride_rows.remainder(row) != 0 || plan.stride_columns.remainder(column) != 0 ||
        out_row >= a.problem.output.rows || out_column >= a.problem.output.columns)
        return -1;
    return image + (out_row * a.problem.grad_row + out_column * a.problem.grad_pixel) * size;
}

// Spreads grad_output out to the input's resolution, with zeros between and around. kFast: one
// column a thread, and tiles start at multiples of the stride.
template <typename T, int kBytes, bool kFast>
__device__ __forceinline__ void load_grad(const WeightGradArguments& a,
                                          const SharedTiles<T>& shared, const TileWalk& walk,
                                          const Column& column, int first_filter, int stage) {
    constexpr int kSize = static_cast<int>(sizeof(T)), kElements = kBytes / kSize;
    const WeightGrad& p = a.problem;
    const int pitch = a.plan.grad_pitch();
    const unsigned images = static_cast<unsigned>(static_cast<int>(p.batch) - walk.image);
    const unsigned rows = static_cast<unsigned>(p.output.rows);
    const unsigned columns = static_cast<unsigned>(p.output.columns);
    const auto load_column = [&](int chunk) {
        const int filter = chunk * kElements;
        const int present =
            present_bytes<T, kBytes>(first_filter + filter, static_cast<int>(p.filters));
        const unsigned char* from =
            walk.grad + (kBytes == 16 ? filter : filter * p.grad_channel) * kSize;
        T* to = shared.grad(stage) + column.row * pitch + filter;
        const HaloPixel* entry = shared.halo + column.row;
#pragma unroll 1
        for (int row = column.row; row < a.plan.halo(); row += a.grad.rows) {
            const HaloPixel pixel = *entry;
            const int out_row = walk.out_row + pixel.row;
            const int out_column = walk.out_column + pixel.column;
            bool meets = static_cast<unsigned>(out_row) < rows &&
                         static_cast<unsigned>(out_column) < columns;
            int64_t offset = pixel.offset;
            if (!kFast && !a.plan.ordered()) {
                offset = divided_by_stride(a, out_row, out_column, offset, kSize);
                meets = offset >= 0;
            }
            meets = meets && static_cast<unsigned>(pixel.image) < images;
            copy<kBytes>(to, from + (meets ? offset : 0), meets ? present : 0);
            to += a.grad.rows * pitch, entry += a.grad.rows;
        }
    };
    if constexpr (kFast)
        load_column(column.chunk);
    else
        for (int chunk = column.chunk; chunk < a.grad.chunks; chunk += a.grad.width.value())
            load_column(chunk);
}

// The general case: any width of the copies. The choice is made once a tile.
template <typename T>
__device__ __forceinline__ void load_any(const WeightGradArguments& a, const SharedTiles<T>& shared,
                                         const TileWalk& walk, const Column& x_column,
                                         const Column& grad_column, int first_channel,
                                         int first_filter, int stage) {
    constexpr int kSize = static_cast<int>(sizeof(T));
    if (a.x.bytes == 16)
        load_x<T, 16, false>(a, shared, walk, x_column, first_channel, stage);
    else if (a.x.bytes == 8)
        load_x<T, 8, false>(a, shared, walk, x_column, first_channel, stage);
    else if (kSize == 4 || a.x.bytes == 4)
        load_x<T, 4, false>(a, shared, walk, x_column, first_channel, stage);
    else
        load_x<T, kSize, false>(a, shared, walk, x_column, first_channel, stage);
    if (a.grad.bytes == 16)
        load_grad<T, 16, false>(a, shared, walk, grad_column, first_filter, stage);
    else if (a.grad.bytes == 8)
        load_grad<T, 8, false>(a, shared, walk, grad_column, first_filter, stage);
    else if (kSize == 4 || a.grad.bytes == 4)
        load_grad<T, 4, false>(a, shared, walk, grad_column, first_filter, stage);
    else
        load_grad<T, kSize, false>(a, shared, walk, grad_column, first_filter, stage);
}

} // namespace maskedconv
