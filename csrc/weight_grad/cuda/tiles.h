// weight_grad's tiles in shared memory: which pixels they hold, and how they are loaded.
#pragma once

#include "common/cuda/device.h"
#include "weight_grad/cuda/plan.h"

namespace maskedconv {

// What the kernel is given. `x_bytes` and `grad_bytes` is how much one copy moves.
struct WeightGradArguments {
    WeightGrad problem;
    Plan plan;
    int x_bytes, grad_bytes;
    float* sums; // [splits, filters, kernel rows, kernel columns, channels]
};

// An input pixel of a tile, relative to its first one.
struct TilePixel {
    int64_t offset;             // in x
    int16_t image, row, column; // image -1: not used
    int16_t halo;               // where the grad_output of the last tap is
};

// A pixel of the halo: rows and columns of grad_output spread out to the input's resolution.
struct HaloPixel {
    int16_t image, row, column, unused;
};

static_assert(sizeof(TilePixel) == kPixelBytes && sizeof(HaloPixel) == kHaloBytes);

template <typename T> struct SharedTiles {
    TilePixel* pixels; // [kTilePixels]
    HaloPixel* halo;   // [plan.halo()]
    T* stages;
    int x_elements, stage_elements;

    __device__ explicit SharedTiles(const Plan& plan) {
        unsigned char* memory = shared_memory();
        const int tables = kTilePixels * kPixelBytes + plan.halo() * kHaloBytes;
        pixels = reinterpret_cast<TilePixel*>(memory);
        halo = reinterpret_cast<HaloPixel*>(pixels + kTilePixels);
        stages = reinterpret_cast<T*>(memory + (tables + 15) / 16 * 16);
        x_elements = kTilePixels * plan.x_pitch();
        stage_elements = x_elements + plan.halo() * plan.grad_pitch();
    }
    __device__ T* x(int stage) const { return stages + stage * stage_elements; }
    __device__ T* grad(int stage) const { return x(stage) + x_elements; }
};

template <typename T>
__device__ void fill_tables(const WeightGrad& p, const Plan& plan, const SharedTiles<T>& shared) {
    const int phase_rows = plan.rows / plan.phase_rows;
    const int phase_columns = plan.columns / plan.phase_columns;
    const int phase_pixels = plan.images * phase_rows * phase_columns;
    for (int k = threadIdx.x; k < kTilePixels; k += blockDim.x) {
        const int phase = k / phase_pixels, rest = k % phase_pixels;
        const int image = rest / (phase_rows * phase_columns);
        const int row =
            rest / phase_columns % phase_rows * plan.phase_rows + phase / plan.phase_columns;
        const int column = rest % phase_columns * plan.phase_columns + phase % plan.phase_columns;
        const bool used = phase < plan.phase_rows * plan.phase_columns;
        const int halo = (image * plan.halo_rows + row) * plan.halo_columns + column;
        shared.pixels[k] = {image * p.x_image + row * p.x_row + column * p.x_pixel,
                            static_cast<int16_t>(used ? image : -1), static_cast<int16_t>(row),
                            static_cast<int16_t>(column), static_cast<int16_t>(used ? halo : 0)};
    }
    for (int k = threadIdx.x; k < plan.halo(); k += blockDim.x)
        shared.halo[k] = {static_cast<int16_t>(k / (plan.halo_rows * plan.halo_columns)),
                          static_cast<int16_t>(k / plan.halo_columns % plan.halo_rows),
                          static_cast<int16_t>(k % plan.halo_columns), 0};
}

// The first pixel of a tile.
struct TileOrigin {
    int64_t image, row, column;

    __device__ TileOrigin(const Plan& plan, int64_t tile) {
        column = tile % plan.column_tiles * plan.columns;
        row = tile / plan.column_tiles % plan.row_tiles * plan.rows;
        image = tile / (plan.column_tiles * plan.row_tiles) * plan.images;
    }
    __device__ bool inside(const WeightGrad& p, const TilePixel& pixel) const {
        return pixel.image >= 0 && pixel.image < p.batch - image &&
               pixel.row < p.input.rows - row && pixel.column < p.input.columns - column;
    }
};

// Divides a matrix of `width` items a row among the threads, without a division a step.
struct MatrixWalk {
    int row, item, row_step, item_step, width;

    __device__ explicit MatrixWalk(int width)
        : row(threadIdx.x / width), item(threadIdx.x % width), row_step(blockDim.x / width),
          item_step(blockDim.x % width), width(width) {}
    __device__ void next() {
        row += row_step, item += item_step;
        if (item >= width)
            item -= width, ++row;
    }
};

// Copies the first `count` elements of `bytes` bytes, and zeros after them.
template <typename T> __device__ void copy_elements(T* to, const T* from, int count, int bytes) {
    const int present = count * static_cast<int>(sizeof(T));
    if (bytes == 16)
        copy_async<16>(to, from, present);
    else if (bytes == 8)
        copy_async<8>(to, from, present);
    else if (bytes == 4)
        copy_async<4>(to, from, present);
    else if (count)
        *to = *from;
    else
        *reinterpret_cast<uint16_t*>(to) = 0;
}

// How many of `elements` elements starting at `first` lie before `end`.
__device__ inline int present_elements(int64_t first, int64_t end, int elements) {
    return first >= end ? 0 : static_cast<int>(end - first < elements ? end - first : elements);
}

template <typename T>
__device__ void load_x(const WeightGradArguments& a, const SharedTiles<T>& shared,
                       const TileOrigin& origin, int64_t first_channel, int stage) {
    const WeightGrad& p = a.problem;
    const int elements = a.x_bytes / static_cast<int>(sizeof(T)), pitch = a.plan.x_pitch();
    const T* x = static_cast<const T*>(p.x);
    const int64_t base =
        origin.image * p.x_image + origin.row * p.x_row + origin.column * p.x_pixel;
    for (MatrixWalk walk(a.plan.block_channels() / elements); walk.row < kTilePixels; walk.next()) {
        const TilePixel pixel = shared.pixels[walk.row];
        const int64_t channel = first_channel + walk.item * elements;
        const int count =
            origin.inside(p, pixel) ? present_elements(channel, p.channels, elements) : 0;
        copy_elements(shared.x(stage) + walk.row * pitch + walk.item * elements,
                      x + (count ? base + pixel.offset + channel : 0), count, a.x_bytes);
    }
}

// Spreads grad_output out to the input's resolution, with zeros between and around.
template <typename T>
__device__ void load_grad(const WeightGradArguments& a, const SharedTiles<T>& shared,
                          const TileOrigin& origin, int64_t first_filter, int stage) {
    const WeightGrad& p = a.problem;
    const Plan& plan = a.plan;
    const int elements = a.grad_bytes / static_cast<int>(sizeof(T)), pitch = plan.grad_pitch();
    const T* grad = static_cast<const T*>(p.grad_output);
    const int stride_rows = p.stride.rows, stride_columns = p.stride.columns;
    const int top = origin.row + p.padding.rows - (p.kernel.rows - 1) * p.dilation.rows;
    const int left =
        origin.column + p.padding.columns - (p.kernel.columns - 1) * p.dilation.columns;
    for (MatrixWalk walk(plan.grad_blocks * 8 / elements); walk.row < plan.halo(); walk.next()) {
        const HaloPixel pixel = shared.halo[walk.row];
        const int row = top + pixel.row, column = left + pixel.column;
        const int64_t image = origin.image + pixel.image;
        const int64_t filter = first_filter + walk.item * elements;
        const int out_row = row / stride_rows, out_column = column / stride_columns;
        const bool inside = image < p.batch && row >= 0 && column >= 0 &&
                            out_row * stride_rows == row && out_column * stride_columns == column &&
                            out_row < p.output.rows && out_column < p.output.columns;
        const int count = inside ? present_elements(filter, p.filters, elements) : 0;
        const int64_t offset = image * p.grad_image + out_row * p.grad_row +
                               out_column * p.grad_pixel + filter * p.grad_channel;
        copy_elements(shared.grad(stage) + walk.row * pitch + walk.item * elements,
                      grad + (count ? offset : 0), count, a.grad_bytes);
    }
}

} // namespace maskedconv
