// The gradient of some images as the tile of weight_grad on the CPU takes it.
#pragma once

#include "weight_grad/operands.h"

namespace maskedconv {

// Rows of `pixels` pixels of `taps` parts each: part t of pixel w is the output's pixel
// w + shift + t, or zeros if there is none.
struct PackedRows {
    int64_t pixels;
    int64_t taps = 1;
    int64_t shift = 0;
};

// The gradient, read in place or packed: [image][output row][pixel][part][filter].
template <typename S, typename E> class Gradient {
  public:
    // Whether a tile can read the gradient in place.
    static bool is_readable(const WeightGrad& p) {
        return std::is_same_v<S, float> && p.grad_channel == 1;
    }

    Gradient(const WeightGrad& p, const Loops<S, E>& loops, const PackedRows& rows)
        : p_(p), loops_(loops), rows_(rows), pixel_(rows.taps * p.filters),
          row_(rows.pixels * pixel_) {}

    // Allocates the buffers for `images` images.
    void allocate(int64_t images) {
        const size_t size = static_cast<size_t>(images * image());
        if constexpr (!kPairs)
            packed_.resize(size);
        if constexpr (!std::is_same_v<S, float>)
            factors_.resize(size);
        if (kPairs && p_.grad_channel != 1)
            gathered_.resize(static_cast<size_t>(p_.output.columns * p_.filters));
    }

    // Points `tile` at the gradient of `count` images from `image` on.
    void set(TileInput<E>& tile, int64_t image, int64_t count) {
        const S* grad = static_cast<const S*>(p_.grad_output) + image * p_.grad_image;
        if (packed_.empty() && factors_.empty())
            return set_as_it_lies(tile, grad);
        for (int64_t i = 0; i < count; ++i)
            pack(grad + i * p_.grad_image, i * this->image());
        tile.grad = factors(count * this->image());
        tile.grad_pixel = pixel_, tile.grad_row = row_, tile.grad_image = this->image();
    }

    int64_t image() const { return p_.output.rows * row_; }

  private:
    static constexpr bool kPairs = std::is_same_v<E, Bfloat16>;

    const WeightGrad& p_;
    const Loops<S, E>& loops_;
    PackedRows rows_;
    int64_t pixel_, row_;        // elements
    std::vector<S> packed_;      // unless it is paired in one pass
    std::vector<float> factors_; // see TileInput; empty if S is float: packed_ has them
    std::vector<S> gathered_;    // a row, if filters do not lie side by side

    void set_as_it_lies(TileInput<E>& tile, const S* grad) const {
        if constexpr (std::is_same_v<S, float>)
            tile.grad = grad;
        tile.grad_image = p_.grad_image, tile.grad_row = p_.grad_row;
        tile.grad_pixel = p_.grad_pixel;
        tile.grad_ahead = kPixelsAhead * p_.grad_pixel;
    }

    // Packs an image, starting at element `to`.
    void pack(const S* from, int64_t to) {
        for (int64_t row = 0; row < p_.output.rows; ++row, from += p_.grad_row, to += row_)
            for (int64_t tap = 0; tap < rows_.taps; ++tap)
                pack_part(from, to + tap * p_.filters, rows_.shift + tap);
    }

    // Packs one part of a row, for the pixels that have an output pixel.
    void pack_part(const S* from, int64_t to, int64_t shift) {
        const int64_t first = std::max<int64_t>(0, -shift);
        const int64_t pixels = std::min(rows_.pixels, p_.output.columns - shift) - first;
        if (pixels <= 0)
            return;
        from += (first + shift) * p_.grad_pixel, to += first * pixel_;
        if constexpr (kPairs)
            pair_pixels(from, to, pixels);
        else
            copy_part(from, {packed_.data() + to, pixel_}, pixels);
    }

    void copy_part(const S* from, Pixels<S> to, int64_t pixels) const {
        if (p_.grad_channel == 1)
            return copy_pixels<S>({from, p_.grad_pixel}, to, pixels, p_.filters);
        for (; pixels > 0; --pixels, from += p_.grad_pixel, to.first += to.pitch)
            for (int64_t filter = 0; filter < p_.filters; ++filter)
                to.first[filter] = from[filter * p_.grad_channel];
    }

    // The pixel before the first, a zero or the last of another row, gets the first as its next.
    void pair_pixels(const S* from, int64_t to, int64_t count) {
        Pixels<const S> pixels{from, p_.grad_pixel};
        if (p_.grad_channel != 1) {
            copy_part(from, {gathered_.data(), p_.filters}, count);
            pixels = {gathered_.data(), p_.filters};
        }
        loops_.widen(pixels, {factors_.data() + to, pixel_}, count, p_.filters);
        if (to >= pixel_)
            set_next(pixels.first, factors_.data() + to - pixel_);
    }

    void set_next(const S* from, float* to) const {
        for (int64_t filter = 0; filter < p_.filters; ++filter) {
            uint32_t pair;
            std::memcpy(&pair, to + filter, sizeof pair);
            pair = (pair & 0xffff) | static_cast<uint32_t>(from[filter].bits) << 16;
            std::memcpy(to + filter, &pair, sizeof pair);
        }
    }

    const float* factors(int64_t count) {
        if constexpr (std::is_same_v<S, float>)
            return packed_.data();
        if constexpr (!kPairs && !std::is_same_v<S, float>)
            loops_.widen({packed_.data(), 0}, {factors_.data(), 0}, 1, count);
        return factors_.data();
    }
};

} // namespace maskedconv
