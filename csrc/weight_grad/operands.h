// How weight_grad on the CPU reads its operands: as they lie, or copied side by side. S is the type
// that they are stored in, E the type that is multiplied: float, or Bfloat16 for pairs of pixels.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "bn_relu/loops.h"
#include "weight_grad/tile.h"
#include "weight_grad/weight_grad.h"

namespace maskedconv {

// Functions that an algorithm calls; the prologue is the activation of bn_relu.
template <typename S, typename E> struct Loops {
    void (*tile)(const TileInput<E>&);
    void (*activate)(const NormInput<S>&, E* out, int64_t out_pixel);
    Widen<S> widen; // null for floats; if E is Bfloat16, it pairs each pixel with the next
};

template <typename T> void copy(const T* from, T* to, int64_t count) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
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
void copy_pixels_of(Pixels<const T> from, Pixels<T> to, int64_t pixels) {
    for (; pixels > 0; --pixels, from.first += from.pitch, to.first += to.pitch) {
        __builtin_prefetch(from.first + kPixelsAhead * from.pitch);
        copy(from.first, to.first, kChannels);
    }
}

// The first channels of a row of pixels.
template <typename T>
void copy_pixels(Pixels<const T> from, Pixels<T> to, int64_t pixels, int64_t channels) {
    if (from.pitch == channels && to.pitch == channels)
        return copy(from.first, to.first, pixels * channels);
    for (int64_t first = 0; first < channels; first += kLane)
        with_constant<kLane>(std::min(kLane, channels - first), [&](auto count) {
            copy_pixels_of<count, T>({from.first + first, from.pitch}, {to.first + first, to.pitch},
                                     pixels);
        });
}

constexpr int64_t kCopiedAtOnce = 4;

// Each copy, except at the last pixels, runs on into the next channels of `to`, which are copied
// later.
template <int kChannels, typename T>
void interleave_of(const std::vector<const T*>& rows, int64_t from_pixel, T* to, int64_t pixels) {
    constexpr int kCopied = ceil_div(kChannels, kCopiedAtOnce) * kCopiedAtOnce;
    constexpr int kLast = ceil_div(kCopied - kChannels, kChannels);
    const auto copy_pixel = [&](int64_t pixel, int channels) __attribute__((always_inline)) {
        for (const T* row : rows) {
            copy(row + pixel * from_pixel, to, channels);
            to += kChannels;
        }
    };
    int64_t pixel = 0;
    for (; pixel < pixels - kLast; ++pixel)
        copy_pixel(pixel, kCopied);
    for (; pixel < pixels; ++pixel)
        copy_pixel(pixel, kChannels);
}

// The pixels of several rows as [pixel][row][channel]; fewer than kLane channels.
template <typename T>
void interleave(const std::vector<const T*>& rows, int64_t from_pixel, T* to, int64_t pixels,
                int64_t channels) {
    with_constant<kLane - 1>(
        channels, [&](auto count) { interleave_of<count>(rows, from_pixel, to, pixels); });
}

// A row of x, with the prologue.
template <typename S, typename E>
void copy_row_of_x(const WeightGrad& p, const Loops<S, E>& loops, const S* from, Pixels<E> to) {
    const int64_t pixels = p.input.columns, channels = p.channels;
    if (p.scale != nullptr)
        return loops.activate({from, p.x_pixel, pixels, channels, p.scale, p.shift}, to.first,
                              to.pitch);
    if constexpr (std::is_same_v<S, E>)
        copy_pixels<S>({from, p.x_pixel}, to, pixels, channels);
    else if (p.x_pixel == channels && to.pitch == channels)
        loops.widen({from, 0}, to, 1, pixels * channels);
    else
        loops.widen({from, p.x_pixel}, to, pixels, channels);
}

} // namespace maskedconv
