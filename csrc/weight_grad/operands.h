// How weight_grad on the CPU reads its operands: as they lie, or copied to floats side by side.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "weight_grad/tile.h"
#include "weight_grad/weight_grad.h"

namespace maskedconv {

constexpr int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

inline float as_float(float value) { return value; }
inline float as_float(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <typename T> void to_floats(const T* from, float* to, int64_t count) {
    if constexpr (std::is_same_v<T, float>)
        std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    else
        for (int64_t i = 0; i < count; ++i)
            to[i] = as_float(from[i]);
}

// Calls body with a small number as a constant: a loop of a known length costs a third of one that
// has to ask for it at each pixel.
template <int kMost, typename F> void with_constant(int64_t number, const F& body) {
    if constexpr (kMost > 0) {
        if (number == kMost)
            body(std::integral_constant<int, kMost>());
        else
            with_constant<kMost - 1>(number, body);
    }
}

// The channels of a pixel may be a part of its cache line: the processor does not foresee the next.
constexpr int64_t kPixelsAhead = 128;

template <int kChannels, typename T>
void copy_pixels_of(const T* from, int64_t from_pixel, float* to, int64_t to_pixel,
                    int64_t pixels) {
    for (int64_t pixel = 0; pixel < pixels; ++pixel, from += from_pixel, to += to_pixel) {
        __builtin_prefetch(from + kPixelsAhead * from_pixel);
        to_floats(from, to, kChannels);
    }
}

// The first channels of a row of pixels; pixels have any pitch on either side.
template <typename T>
void copy_pixels(const T* from, int64_t from_pixel, float* to, int64_t to_pixel, int64_t pixels,
                 int64_t channels) {
    if (from_pixel == channels && to_pixel == channels)
        return to_floats(from, to, pixels * channels);
    for (int64_t first = 0; first < channels; first += kLane)
        with_constant<kLane>(std::min(kLane, channels - first), [&](auto count) {
            copy_pixels_of<count>(from + first, from_pixel, to + first, to_pixel, pixels);
        });
}

constexpr int64_t kCopiedAtOnce = 4;

// Each copy but those of the last pixels goes on into the channels that come next in `to`, which
// are copied later.
template <int kChannels, typename T>
void interleave_of(const std::vector<const T*>& rows, int64_t from_pixel, float* to,
                   int64_t pixels) {
    constexpr int kCopied = ceil_div(kChannels, kCopiedAtOnce) * kCopiedAtOnce;
    constexpr int kLast = ceil_div(kCopied - kChannels, kChannels);
    const auto copy = [&](int64_t pixel, int channels) __attribute__((always_inline)) {
        for (const T* row : rows) {
            to_floats(row + pixel * from_pixel, to, channels);
            to += kChannels;
        }
    };
    int64_t pixel = 0;
    for (; pixel < pixels - kLast; ++pixel)
        copy(pixel, kCopied);
    for (; pixel < pixels; ++pixel)
        copy(pixel, kChannels);
}

// The pixels of several rows as [pixel][row][channel]; fewer than kLane channels.
template <typename T>
void interleave(const std::vector<const T*>& rows, int64_t from_pixel, float* to, int64_t pixels,
                int64_t channels) {
    with_constant<kLane - 1>(
        channels, [&](auto count) { interleave_of<count>(rows, from_pixel, to, pixels); });
}

// A row of x, with the prologue.
template <typename T>
void copy_row_of_x(const WeightGrad& p, const Loops& loops, const T* from, float* to,
                   int64_t to_pixel) {
    const auto activate = [&](const float* x, int64_t x_pixel) {
        loops.activate({x, x_pixel, p.input.columns, p.channels, p.scale, p.shift}, to, to_pixel);
    };
    if constexpr (std::is_same_v<T, float>)
        if (p.scale != nullptr)
            return activate(from, p.x_pixel);
    copy_pixels(from, p.x_pixel, to, to_pixel, p.input.columns, p.channels);
    if (p.scale != nullptr)
        activate(to, to_pixel);
}

// Whether a tile can read the gradient where it is.
inline bool is_readable(const WeightGrad& p) {
    return p.type == ElementType::float32 && p.grad_channel == 1;
}

template <typename T> void pack_row(const WeightGrad& p, const T* from, float* to) {
    if (p.grad_channel == 1)
        return copy_pixels(from, p.grad_pixel, to, p.filters, p.output.columns, p.filters);
    for (int64_t pixel = 0; pixel < p.output.columns; ++pixel, from += p.grad_pixel)
        for (int64_t filter = 0; filter < p.filters; ++filter)
            *to++ = as_float(from[filter * p.grad_channel]);
}

// [output row][pixel][filter], rows of `pixels` pixels that begin `left` pixels into each.
template <typename T>
void pack_gradient(const WeightGrad& p, const T* from, float* to, int64_t left, int64_t pixels) {
    for (int64_t row = 0; row < p.output.rows; ++row, from += p.grad_row)
        pack_row(p, from, to + (row * pixels + left) * p.filters);
}

// The tile's gradient of `count` images: packed as by pack_gradient into `buffer`, one image after
// another, or as it lies where that is null.
template <typename T>
void set_gradient(TileInput& tile, const WeightGrad& p, int64_t image, int64_t count, float* buffer,
                  int64_t left, int64_t pixels) {
    const T* grad = static_cast<const T*>(p.grad_output) + image * p.grad_image;
    if (buffer == nullptr) {
        tile.grad = reinterpret_cast<const float*>(grad);
        tile.grad_image = p.grad_image, tile.grad_row = p.grad_row, tile.grad_pixel = p.grad_pixel;
        tile.grad_ahead = kPixelsAhead * p.grad_pixel;
        return;
    }
    tile.grad = buffer;
    tile.grad_pixel = p.filters, tile.grad_row = pixels * p.filters;
    tile.grad_image = p.output.rows * tile.grad_row;
    for (int64_t i = 0; i < count; ++i)
        pack_gradient(p, grad + i * p.grad_image, buffer + i * tile.grad_image, left, pixels);
}

} // namespace maskedconv
