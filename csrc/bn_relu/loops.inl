// The element-wise passes of BatchNorm and ReLU. Included by loops_<isa>.cpp, which sets kWidth.
#include "bn_relu/loops.h"
#include "common/vector.inl"

namespace maskedconv {
namespace {

// Calls body(channel, constant width) for all channels of a pixel: vectors, and then one by one.
template <typename F> void for_channels(int64_t channels, const F& body) {
    int64_t channel = 0;
    for (; channel + kWidth <= channels; channel += kWidth)
        body(channel, Vector());
    for (; channel < channels; ++channel)
        body(channel, float());
}

// What passes the ReLU whose argument is `condition`; NaN opens it.
template <typename V> V passing(V condition, V value) {
    const V zero = {};
    return condition <= zero ? zero : value;
}

template <typename V> V normalised(const NormInput& n, V x, int64_t channel) {
    return x * load<V>(n.scale + channel) + load<V>(n.shift + channel);
}

void activate(const NormInput& n, float* out, int64_t out_pixel) {
    const float* x = n.x;
    for (int64_t pixel = 0; pixel < n.pixels; ++pixel, x += n.x_pixel, out += out_pixel)
        for_channels(n.channels, [&](int64_t c, auto width) {
            using V = decltype(width);
            const V value = normalised(n, load<V>(x + c), c);
            store(out + c, passing(value, value));
        });
}

void sum_gradient(const NormInput& n, const float* grad, const float* mean, float* sums) {
    const float* x = n.x;
    float* products = sums + n.channels;
    for (int64_t pixel = 0; pixel < n.pixels; ++pixel, x += n.x_pixel, grad += n.channels)
        for_channels(n.channels, [&](int64_t c, auto width) {
            using V = decltype(width);
            const V value = load<V>(x + c);
            const V passed = passing(normalised(n, value, c), load<V>(grad + c));
            store(sums + c, load<V>(sums + c) + passed);
            const V product = passed * (value - load<V>(mean + c));
            store(products + c, load<V>(products + c) + product);
        });
}

// Without the moments' part where that is zero: 0 times what is not finite would be NaN.
template <bool kOfBatch, bool kAdds>
void input_gradient_of(const NormInput& n, const float* grad, const float* mean,
                       const float* factor, const float* offset, GradX grad_x) {
    const float* x = n.x;
    float* out = grad_x.first;
    for (int64_t pixel = 0; pixel < n.pixels; ++pixel) {
        for_channels(n.channels, [&](int64_t c, auto width) {
            using V = decltype(width);
            const V value = load<V>(x + c);
            const V passed = passing(normalised(n, value, c), load<V>(grad + c));
            V centred = passed;
            if constexpr (kOfBatch)
                centred -= (value - load<V>(mean + c)) * load<V>(factor + c) + load<V>(offset + c);
            V result = centred * load<V>(n.scale + c);
            if constexpr (kAdds)
                result += load<V>(out + c);
            store(out + c, result);
        });
        x += n.x_pixel, grad += n.channels, out += grad_x.pixel;
    }
}

template <bool kAdds>
void input_gradient_to(const NormInput& n, const float* grad, const float* mean,
                       const float* factor, const float* offset, GradX grad_x) {
    const auto gradient =
        factor != nullptr ? input_gradient_of<true, kAdds> : input_gradient_of<false, kAdds>;
    gradient(n, grad, mean, factor, offset, grad_x);
}

void input_gradient(const NormInput& n, const float* grad, const float* mean, const float* factor,
                    const float* offset, GradX grad_x) {
    const auto gradient = grad_x.adds ? input_gradient_to<true> : input_gradient_to<false>;
    gradient(n, grad, mean, factor, offset, grad_x);
}

} // namespace
} // namespace maskedconv
