// The products of weight_grad. Included by tile_<isa>.cpp, which sets kWidth, the number of
// accumulators that fit beside the operands, and the most columns of a block. P is a set of
// products such as those of products.inl.
#include "weight_grad/tile.h"

#include <algorithm>
#include <type_traits>

#include "common/vector.inl"

namespace maskedconv {
namespace {

// Additions to one register wait for each other: so many of them are to be under way.
constexpr int kUnderWay = kAccumulators * 2 / 3;

// Steps of P::kPixels pixels that a register adds up, or the row's rest more: see sums.h.
constexpr int64_t kRun = 128;

// kVectors vectors of channels times kColumns columns, accumulated in registers. If these are few,
// kSplit successive steps have separate registers. Inlined, gcc keeps some sums in memory.
template <typename P, int kVectors, int kColumns>
__attribute__((noinline)) void block(const TileInput<typename P::Element>& t, int64_t channel,
                                     int64_t column) {
    using E = typename P::Element;
    constexpr int kSplit = std::max(1, kUnderWay / (kVectors * kColumns));
    constexpr bool kLoadsOnce = kColumns > 1 && kAccumulators > 16; // else there is no register
    // Fewer products wait for the memory anyway.
    constexpr bool kPrefetches = kVectors * kColumns > 8;
    Vector sum[kSplit][kVectors][kColumns] = {};
    int64_t offset[kVectors];
    for (int v = 0; v < kVectors; ++v) {
        const int64_t first = channel + v * kWidth;
        offset[v] = t.offsets[first / kLane] + first % kLane;
    }
    const auto flush = [&] {
        for (int j = 0; j < kColumns; ++j)
            for (int v = 0; v < kVectors; ++v) {
                float* to = t.sum + (column + j) * t.channels + channel + v * kWidth;
                for (int split = 1; split < kSplit; ++split)
                    sum[0][v][j] += sum[split][v][j];
                store(to, load(to) + sum[0][v][j]);
                for (int split = 0; split < kSplit; ++split)
                    sum[split][v][j] = Vector{};
            }
    };
    const auto add_pixels = [&](const E* x, const float* grad, int64_t pixels) {
        const auto add_step = [&](auto count, int split) {
            typename P::Operand loaded[kVectors];
            if constexpr (kPrefetches)
                __builtin_prefetch(grad + t.grad_ahead);
            for (int v = 0; v < kVectors; ++v) {
                if constexpr (kPrefetches)
                    __builtin_prefetch(x + offset[v] + t.x_ahead);
                loaded[v] = P::template load<kLoadsOnce>(count, x + offset[v], t.x_pixel);
            }
            for (int j = 0; j < kColumns; ++j)
                for (int v = 0; v < kVectors; ++v)
                    P::add(count, sum[split][v][j], loaded[v], grad + j);
            x += count * t.x_pixel;
            grad += count * t.grad_pixel;
        };
        constexpr std::integral_constant<int, P::kPixels> step;
        int64_t left = pixels;
        for (; left >= kSplit * step; left -= kSplit * step)
            for (int split = 0; split < kSplit; ++split)
                add_step(step, split);
        for (; left >= step; left -= step)
            add_step(step, 0);
        if constexpr (step > 1)
            for (; left > 0; --left)
                add_step(std::integral_constant<int, 1>(), 0);
    };
    constexpr int64_t kPixelsOfARun = kSplit * kRun * P::kPixels;
    int64_t added = 0;
    for (int64_t image = 0; image < t.images; ++image)
        for (int64_t row = 0; row < t.rows; ++row) {
            const E* x = t.x + image * t.x_image + row * t.x_row;
            const float* grad = t.grad + image * t.grad_image + row * t.grad_row + column;
            for (int64_t pixel = 0; pixel < t.pixels; pixel += kPixelsOfARun) {
                const int64_t pixels = std::min(kPixelsOfARun, t.pixels - pixel);
                add_pixels(x + pixel * t.x_pixel, grad + pixel * t.grad_pixel, pixels);
                added += pixels;
                if (added >= kPixelsOfARun)
                    flush(), added = 0;
            }
        }
    if (added > 0)
        flush();
}

// All channels from `channel` on, by blocks of kVectors vectors and then of fewer.
template <typename P, int kVectors, int kColumns>
void channels(const TileInput<typename P::Element>& t, int64_t channel, int64_t column) {
    for (; channel + kVectors * kWidth <= t.channels; channel += kVectors * kWidth)
        block<P, kVectors, kColumns>(t, channel, column);
    if constexpr (kVectors > 1)
        channels<P, kVectors - 1, kColumns>(t, channel, column);
}

// All channels of kColumns columns.
template <typename P, int kColumns>
void columns(const TileInput<typename P::Element>& t, int64_t column) {
    channels<P, std::max(1, std::min(4, kAccumulators / kColumns)), kColumns>(t, 0, column);
}

template <typename P, int kColumns>
void at_most(const TileInput<typename P::Element>& t, int64_t column, int64_t left) {
    if constexpr (kColumns > 0) {
        if (left == kColumns)
            columns<P, kColumns>(t, column);
        else
            at_most<P, kColumns - 1>(t, column, left);
    }
}

// Rows that follow one another without a gap are one, and so are images.
template <typename E> TileInput<E> with_longest_rows(TileInput<E> t) {
    if (t.x_row == t.pixels * t.x_pixel && t.grad_row == t.pixels * t.grad_pixel) {
        t.pixels *= t.rows;
        t.x_row = t.x_image, t.grad_row = t.grad_image;
        t.rows = t.images, t.images = 1;
        if (t.x_row == t.pixels * t.x_pixel && t.grad_row == t.pixels * t.grad_pixel)
            t.pixels *= t.rows, t.rows = 1;
    }
    return t;
}

// Columns in as few blocks as fit the registers, of sizes as even as possible.
template <typename P> void tile(const TileInput<typename P::Element>& input) {
    const auto t = with_longest_rows(input);
    // Three vectors in one block rather than two, if the columns need several blocks anyway.
    const bool three = t.channels == 3 * kWidth && t.columns > kMostColumns;
    const int64_t most = three ? kAccumulators / 3 : kMostColumns;
    const int64_t blocks = (t.columns + most - 1) / most;
    for (int64_t i = 0, column = 0; i < blocks; ++i) {
        const int64_t end = t.columns * (i + 1) / blocks;
        at_most<P, kMostColumns>(t, column, end - column);
        column = end;
    }
}

} // namespace
} // namespace maskedconv
