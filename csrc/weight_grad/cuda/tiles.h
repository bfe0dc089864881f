// weight_grad's tiles in shared memory: which pixels they hold, and their offsets.
//
// A tile needs no division: tables hold the offsets that all tiles share, and a walk steps from
// tile to tile.
#pragma once

#include "common/cuda/device.h"
#include "weight_grad/cuda/plan.h"

namespace maskedconv {

// How an operand is copied: `width` threads lie side by side, each copies `bytes` of every
// `rows`-th pixel. `next_*` is how many bytes further the next tile of a row, of a column or of the
// images is.
struct Copies {
    int bytes, chunks; // of one copy, and how many there are in a pixel
    Divisor width;
    int rows;
    int64_t next_column, next_row, next_images;
};

// Arguments of the kernel.
struct WeightGradArguments {
    WeightGrad problem;
    Plan plan;
    Copies x, grad;
    // Start of the first tile's halo: output pixel, and input rows and columns beyond it.
    int out_row, out_column, rest_rows, rest_columns;
    int out_rows, out_columns; // from a tile to the next
    float* sums;               // [splits, filters, kernel rows, kernel columns, channels]
};

// An input pixel of a tile, relative to its first one. `place` is image, row and column, 8 bits
// each, the highest of them 0: tiles have 64 pixels.
struct TilePixel {
    int64_t offset; // in x, in bytes
    uint32_t place;
    int halo; // offset of the last tap's grad_output, in bytes
};

// A pixel of the halo: of grad_output, relative to the first output pixel of the tile's halo; or,
// if tiles do not start at multiples of the stride, of grad_output spread out to the input's
// resolution. image -1: a zero between the pixels of grad_output.
struct HaloPixel {
    int64_t offset; // in grad_output, in bytes
    int16_t image, row, column, unused;
};

static_assert(sizeof(TilePixel) == kPixelBytes && sizeof(HaloPixel) == kHaloBytes);

constexpr uint32_t kGuards = 0x808080; // the bits above the parts of a place
constexpr uint32_t kUnused = 0x7f7f7f; // the place of no pixel

__device__ __forceinline__ int place_row(uint32_t place) { return place >> 8 & 0xff; }
__device__ __forceinline__ int place_column(uint32_t place) { return place >> 16; }

// `limit` has the last image, row and column. If a part of the place is beyond its limit, the
// difference borrows its guard.
__device__ __forceinline__ bool inside(uint32_t limit, uint32_t place) {
    return ((limit - place) & kGuards) == kGuards;
}

template <typename T> struct SharedTiles {
    TilePixel* pixels; // [kTilePixels]
    HaloPixel* halo;   // [plan.halo()]
    T* stages;
    int x_elements, stage_elements;

    __device__ explicit SharedTiles(const Plan& plan) {
        unsigned char* memory = shared_memory();
        pixels = reinterpret_cast<TilePixel*>(memory);
        halo = reinterpret_cast<HaloPixel*>(pixels + kTilePixels);
        stages = reinterpret_cast<T*>(halo + plan.halo());
        x_elements = kTilePixels * plan.x_pitch();
        stage_elements = x_elements + plan.halo() * plan.grad_pitch();
    }
    __device__ T* x(int stage) const { return stages + stage * stage_elements; }
    __device__ T* grad(int stage) const { return x(stage) + x_elements; }
};

template <typename T>
__device__ TilePixel tile_pixel(const WeightGrad& p, const Plan& plan, int k) {
    const int phase = plan.phase_pixels.quotient(k), rest = plan.phase_pixels.remainder(k);
    if (phase >= plan.phase_rows * plan.phase_columns)
        return {0, kUnused, 0};
    const int image = plan.image_pixels.quotient(rest), pixel = plan.image_pixels.remainder(rest);
    const int row =
        plan.row_pixels.quotient(pixel) * plan.phase_rows + plan.phases_across.quotient(phase);
    const int column =
        plan.row_pixels.remainder(pixel) * plan.phase_columns + plan.phases_across.remainder(phase);
    const int halo = (image * plan.halo_rows + row) * plan.halo_columns + column;
    const int64_t offset = image * p.x_image + row * p.x_row + column * p.x_pixel;
    return {offset * static_cast<int>(sizeof(T)),
            static_cast<uint32_t>(image | row << 8 | column << 16),
            halo * plan.grad_pitch() * static_cast<int>(sizeof(T))};
}

template <typename T> __device__ HaloPixel halo_pixel(const WeightGradArguments& a, int k) {
    const WeightGrad& p = a.problem;
    const Plan& plan = a.plan;
    int image = plan.halo_image.quotient(k);
    const int pixel = plan.halo_image.remainder(k);
    int row = plan.halo_row.quotient(pixel), column = plan.halo_row.remainder(pixel);
    int64_t offset = image * p.grad_image;
    if (plan.ordered()) {
        row += a.rest_rows, column += a.rest_columns;
        if (plan.stride_rows.remainder(row) != 0 || plan.stride_columns.remainder(column) != 0)
            image = -1;
        row = plan.stride_rows.quotient(row), column = plan.stride_columns.quotient(column);
        offset += row * p.grad_row + column * p.grad_pixel;
    }
    return {offset * static_cast<int>(sizeof(T)), static_cast<int16_t>(image),
            static_cast<int16_t>(row), static_cast<int16_t>(column), 0};
}

template <typename T>
__device__ void fill_tables(const WeightGradArguments& a, const SharedTiles<T>& shared) {
    for (int k = threadIdx.x; k < kTilePixels; k += blockDim.x)
        shared.pixels[k] = tile_pixel<T>(a.problem, a.plan, k);
    for (int k = threadIdx.x; k < a.plan.halo(); k += blockDim.x)
        shared.halo[k] = halo_pixel<T>(a, k);
}

// Steps through a block's tiles. The pointers are to the first pixel of the tile (of grad_output:
// of its halo, which may lie outside), at the block's first channel or filter.
struct TileWalk {
    int image, row, column, out_row, out_column;
    const unsigned char *x, *grad;

    // To tile number `tile`.
    template <typename T>
    __device__ TileWalk(const WeightGradArguments& a, const T* block_x, const T* block_grad,
                        int tile) {
        const WeightGrad& p = a.problem;
        const Plan& plan = a.plan;
        const int across = plan.column_tiles.remainder(tile);
        const int rest = plan.column_tiles.quotient(tile);
        const int down = plan.row_tiles.remainder(rest);
        image = plan.row_tiles.quotient(rest) * plan.images;
        row = down * plan.rows, column = across * plan.columns;
        out_row = a.out_row + down * a.out_rows, out_column = a.out_column + across * a.out_columns;
        x = reinterpret_cast<const unsigned char*>(block_x + image * p.x_image + row * p.x_row +
                                                   column * p.x_pixel);
        grad = reinterpret_cast<const unsigned char*>(block_grad + image * p.grad_image);
        if (plan.ordered())
            grad +=
                (out_row * p.grad_row + out_column * p.grad_pixel) * static_cast<int>(sizeof(T));
    }

    __device__ __forceinline__ void next(const WeightGradArguments& a) {
        column += a.plan.columns, out_column += a.out_columns;
        if (column < a.problem.input.columns)
            return move(a.x.next_column, a.grad.next_column);
        column = 0, out_column = a.out_column;
        row += a.plan.rows, out_row += a.out_rows;
        if (row < a.problem.input.rows)
            return move(a.x.next_row, a.grad.next_row);
        row = 0, out_row = a.out_row;
        image += a.plan.images;
        move(a.x.next_images, a.grad.next_images);
    }

    // For inside().
    __device__ __forceinline__ uint32_t limit(const WeightGrad& p) const {
        return kGuards | last(p.batch, image) | last(p.input.rows, row) << 8 |
               last(p.input.columns, column) << 16;
    }

  private:
    __device__ __forceinline__ void move(int64_t x_bytes, int64_t grad_bytes) {
        x += x_bytes, grad += grad_bytes;
    }
    static __device__ __forceinline__ uint32_t last(int64_t size, int first) {
        const int last = static_cast<int>(size) - 1 - first;
        return last < kTilePixels - 1 ? last : kTilePixels - 1;
    }
};

} // namespace maskedconv
