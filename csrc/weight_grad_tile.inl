// Included by weight_grad_<isa>.cpp, which sets kWidth (floats in a vector register) and the number
// of accumulators that fit beside the operands.
#include "weight_grad_kernel.h"

#include <algorithm>
#include <cstring>

namespace maskedconv {
namespace {

typedef float Vector __attribute__((vector_size(kWidth * sizeof(float))));

inline Vector load(const float* p) {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline void store(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }

// kVectors vectors of channels times kColumns columns, accumulated in registers.
template <int kVectors, int kColumns>
void block(const TileInput& t, int64_t channel, int64_t column) {
    Vector sum[kVectors][kColumns];
    for (int j = 0; j < kColumns; ++j)
        for (int v = 0; v < kVectors; ++v)
            sum[v][j] = load(t.sum + (column + j) * t.channels + channel + v * kWidth);
    for (int64_t row = 0; row < t.rows; ++row) {
        const float* x = t.x + row * t.x_row + channel;
        const float* grad = t.grad + row * t.grad_row + column;
        for (int64_t pixel = 0; pixel < t.pixels; ++pixel) {
            Vector loaded[kVectors];
            for (int v = 0; v < kVectors; ++v)
                loaded[v] = load(x + v * kWidth);
            for (int j = 0; j < kColumns; ++j)
                for (int v = 0; v < kVectors; ++v)
                    sum[v][j] += loaded[v] * grad[j];
            x += t.x_pixel;
            grad += t.grad_pixel;
        }
    }
    for (int j = 0; j < kColumns; ++j)
        for (int v = 0; v < kVectors; ++v)
            store(t.sum + (column + j) * t.channels + channel + v * kWidth, sum[v][j]);
}

// All channels of kColumns columns.
template <int kColumns> void columns(const TileInput& t, int64_t column) {
    constexpr int kVectors = std::max(1, std::min(4, kAccumulators / kColumns));
    int64_t channel = 0;
    for (; channel + kVectors * kWidth <= t.channels; channel += kVectors * kWidth)
        block<kVectors, kColumns>(t, channel, column);
    for (; channel < t.channels; channel += kWidth)
        block<1, kColumns>(t, channel, column);
}

template <int kColumns> void at_most(const TileInput& t, int64_t column, int64_t left) {
    if constexpr (kColumns > 0) {
        if (left == kColumns)
            columns<kColumns>(t, column);
        else
            at_most<kColumns - 1>(t, column, left);
    }
}

// Columns in as few blocks as fit the registers, of sizes as even as possible.
void tile(const TileInput& t) {
    const int64_t blocks = (t.columns + kMostColumns - 1) / kMostColumns;
    for (int64_t i = 0, column = 0; i < blocks; ++i) {
        const int64_t end = t.columns * (i + 1) / blocks;
        at_most<kMostColumns>(t, column, end - column);
        column = end;
    }
}

} // namespace
} // namespace maskedconv
