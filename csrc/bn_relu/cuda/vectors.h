// Vectors of neighbouring channels, and how a block's threads lie over pixels and channels.
#pragma once

#include <algorithm>
#include <type_traits>

#include "bn_relu/cuda/bn_relu_cuda.h"
#include "common/cuda/elements.h"

namespace maskedconv {

constexpr int kNormThreads = 256;
constexpr int kTileChannels = 64; // at most, of a block
// Most blocks for each multiprocessor, in kernels that add up and in others.
constexpr int kSumWaves = 4, kElementWaves = 8;
static_assert(kMostNormPixels + kMostMultiprocessors * kElementWaves * kNormThreads - 1 <=
              INT32_MAX);

template <typename T, int kWidth>
__device__ __forceinline__ void load_vector(const void* data, int64_t offset, float (&to)[kWidth]) {
    const auto read = load<kWidth>(static_cast<const T*>(data) + offset);
    for (int i = 0; i < kWidth; ++i)
        to[i] = to_float32(read.values[i]);
}

template <typename T, int kWidth>
__device__ __forceinline__ void store_vector(void* data, int64_t offset,
                                             const float (&values)[kWidth]) {
    Vector<T, kWidth> written;
    for (int i = 0; i < kWidth; ++i)
        written.values[i] = from_float32<T>(values[i]);
    store(static_cast<T*>(data) + offset, written);
}

// The numbers of a vector's channels; zeros without a row.
template <int kWidth>
__device__ __forceinline__ void load_channels(const float* row, int channel, float (&to)[kWidth]) {
    for (int i = 0; i < kWidth; ++i)
        to[i] = row == nullptr ? 0.0f : row[channel + i];
}

// A block has `lanes` threads along the channels, each with a vector, and the others along the
// pixels. Both are powers of two.
struct NormGrid {
    int width; // channels of a vector
    int lane_bits;
    int channel_tiles;
    int pixel_blocks;

    int lanes() const { return 1 << lane_bits; }
    dim3 grid() const {
        return dim3(static_cast<unsigned>(pixel_blocks), static_cast<unsigned>(channel_tiles));
    }
};

// A thread's position in the grid.
struct NormThread {
    int lane, row, rows, channel;

    template <int kWidth> static __device__ __forceinline__ NormThread at(int lane_bits) {
        NormThread t;
        t.lane = static_cast<int>(threadIdx.x) & ((1 << lane_bits) - 1);
        t.row = static_cast<int>(threadIdx.x) >> lane_bits;
        t.rows = kNormThreads >> lane_bits;
        t.channel = (static_cast<int>(blockIdx.y << lane_bits) + t.lane) * kWidth;
        return t;
    }
    __device__ __forceinline__ int first_pixel() const {
        return static_cast<int>(blockIdx.x) * rows + row;
    }
    __device__ __forceinline__ int step() const { return static_cast<int>(gridDim.x) * rows; }
};

// Vectors that fit the addresses, the distances of pixels, and the number of channels.
inline int vector_width(const NormShape& shape, std::initializer_list<const Pixels*> operands) {
    const int element = shape.type == ElementType::float32 ? 4 : 2;
    for (int width = 16 / element; width > 1; width /= 2) {
        const auto fits = [&](const Pixels* p) {
            return p->pitch % width == 0 &&
                   reinterpret_cast<uintptr_t>(p->data) % (width * element) == 0;
        };
        if (shape.channels % width == 0 && std::all_of(operands.begin(), operands.end(), fits))
            return width;
    }
    return 1;
}

// `waves`: blocks for each multiprocessor at most.
inline NormGrid norm_grid(const NormShape& shape, int width, int multiprocessors, int waves) {
    const int vectors = (shape.channels + width - 1) / width;
    NormGrid grid{width, 0, 0, 0};
    while (grid.lanes() < vectors && grid.lanes() * 2 * width <= std::max(kTileChannels, 2 * width))
        ++grid.lane_bits;
    grid.channel_tiles = (vectors + grid.lanes() - 1) / grid.lanes();
    constexpr int64_t kPixelsEach = 4; // fewer of them for a thread do not pay for its start
    const int64_t rows = kNormThreads / grid.lanes();
    const int64_t useful = (shape.pixels + rows * kPixelsEach - 1) / (rows * kPixelsEach);
    const int64_t most = std::max(1, multiprocessors * waves / grid.channel_tiles);
    grid.pixel_blocks = static_cast<int>(std::max<int64_t>(1, std::min(useful, most)));
    return grid;
}

// Calls `act` with the element type and the width as template arguments.
template <typename Act> void for_width(const NormShape& shape, int width, Act act) {
    for_element(shape.type, [&](auto element) {
        using T = decltype(element);
        if constexpr (sizeof(T) == 2) {
            if (width == 8)
                return act(element, std::integral_constant<int, 8>());
        }
        if (width == 4)
            return act(element, std::integral_constant<int, 4>());
        if (width == 2)
            return act(element, std::integral_constant<int, 2>());
        return act(element, std::integral_constant<int, 1>());
    });
}

} // namespace maskedconv
