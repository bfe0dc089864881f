// The gradient of some images as the tile of weight_grad on the CPU takes it.
#pragma once

#include "weight_grad/operands.h"

namespace maskedconv {

// Read where it is, or packed: [image][output row][pixel][filter], rows of `pixels` pixels that
// begin `left` pixels into each, zeros around.
template <typename S, typename E> class Gradient {
  public:
    // Whether a tile can read the gradient where it is.
    static bool is_readable(const WeightGrad& p) {
        return std::is_same_v<S, float> && p.grad_channel == 1;
    }

    Gradient(const WeightGrad& p, const Loops<S, E>& loops, int64_t left, int64_t pixels)
        : p_(p), loops_(loops), left_(left), row_(pixels * p.filters) {}

    // Of `images` images at once.
    void allocate(int64_t images) {
        const size_t size = static_cast<size_t>(images * image());
        if constexpr (!kPairs)
            packed_.resize(size);
        if constexpr (!std::is_same_v<S, float>)
            factors_.resize(size);
        if (kPairs && p_.grad_channel != 1)
            gathered_.resize(static_cast<size_t>(p_.output.columns * p_.filters));
    }

    // Of `count` images from `image` on.
    void set(TileInput<E>& tile, int64_t image, int64_t count) {
        const S* grad = static_cast<const S*>(p_.grad_output) + image * p_.grad_image;
        if (packed_.empty() && factors_.empty())
            return set_as_it_lies(tile, grad);
        for (int64_t i = 0; i < count; ++i)
            pack(grad + i * p_.grad_image, i * this->image());
        tile.grad = factors(count * this->image());
        tile.grad_pixel = p_.filters, tile.grad_row = row_, tile.grad_image = this->image();
    }

    int64_t image() const { return p_.output.rows * row_; }

  private:
    static constexpr bool kPairs = std::is_same_v<E, Bfloat16>;

    const WeightGrad& p_;
    const Loops<S, E>& loops_;
    int64_t left_, row_;
    std::vector<S> packed_;      // unless it is paired in one pass
    std::vector<float> factors_; // see TileInput; packed_ itself where S is float
    std::vector<S> gathered_;    // a row whose filters do not lie side by side

    void set_as_it_lies(TileInput<E>& tile, const S* grad) const {
        if constexpr (std::is_same_v<S, float>)
            tile.grad = grad;
        tile.grad_image = p_.grad_image, tile.grad_row = p_.grad_row;
        tile.grad_pixel = p_.grad_pixel;
        tile.grad_ahead = kPixelsAhead * p_.grad_pixel;
    }

    // An image, to `to` elements behind the first.
    void pack(const S* from, int64_t to) {
        to += left_ * p_.filters;
        for (int64_t row = 0; row < p_.output.rows; ++row, from += p_.grad_row, to += row_) {
            if constexpr (kPairs)
                pair_row(from, to);
            else
                pack_row(from, packed_.data() + to);
        }
    }

    void pack_row(const S* from, S* to) const {
        if (p_.grad_channel == 1)
            return copy_pixels<S>({from, p_.grad_pixel}, {to, p_.filters}, p_.output.columns,
                                  p_.filters);
        for (int64_t pixel = 0; pixel < p_.output.columns; ++pixel, from += p_.grad_pixel)
            for (int64_t filter = 0; filter < p_.filters; ++filter)
                *to++ = from[filter * p_.grad_channel];
    }

    // The pixel in front of the row's first, a margin or the last of another row, has that as its
    // next one.
    void pair_row(const S* from, int64_t to) {
        Pixels<const S> pixels{from, p_.grad_pixel};
        if (p_.grad_channel != 1) {
            pack_row(from, gathered_.data());
            pixels = {gathered_.data(), p_.filters};
        }
        loops_.widen(pixels, {factors_.data() + to, p_.filters}, p_.output.columns, p_.filters);
        if (to >= p_.filters)
            set_next(pixels.first, factors_.data() + to - p_.filters);
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
