// The element-wise passes of BatchNorm and ReLU. Included by loops_<isa>.cpp, which sets kWidth.
#include "bn_relu/loops.h"
#include "common/halves.inl"

namespace maskedconv {
namespace {

// Width of the shortest vectors; channels behind these are computed one by one.
constexpr int kLeastWidth = 4;

// Calls body(channel, width) for the channels behind the last full vector.
template <int kLanes, typename F> void for_rest(int64_t channel, int64_t channels, const F& body) {
    if constexpr (kLanes >= kLeastWidth) {
        if (channel + kLanes <= channels) {
            body(channel, typename Lanes<kLanes>::Floats());
            channel += kLanes;
        }
        for_rest<kLanes / 2>(channel, channels, body);
    } else {
        for (; channel < channels; ++channel)
            body(channel, float());
    }
}

// Calls body(channel, width) for all channels of a pixel: vectors, shorter ones, and one by one.
// The type of width is the type of the values.
template <typename F> void for_channels(int64_t channels, const F& body) {
    int64_t channel = 0;
    for (; channel + kWidth <= channels; channel += kWidth)
        body(channel, Vector());
    for_rest<kWidth / 2>(channel, channels, body);
}

// Distance of prefetching, in pixels: the processor does not foresee the pixels of a view of wider
// ones.
constexpr int64_t kPixelsAhead = 32;

// `value` if a ReLU of `condition` is open, else 0; NaN opens it.
template <typename V> V passing(V condition, V value) {
    const V zero = {};
    return condition <= zero ? zero : value;
}

// The value at a channel of a pixel.
template <bool kAdds, typename V, typename T> V value_of_sum(const T* x, const T* summand) {
    if constexpr (kAdds)
        return rounded_to<T>(load<V>(x) + load<V>(summand));
    else
        return load<V>(x);
}

template <bool kAdds, typename T>
void sum_moments_of(const MomentsInput<T>& input, float* pivot, float* sums) {
    const MomentsInput<T> in = input;
    const T *x = in.x, *summand = in.summand;
    T* total = in.total;
    float* squares = sums + in.channels;
    for_channels(in.channels, [&](int64_t c, auto width) {
        using V = decltype(width);
        store(pivot + c, value_of_sum<kAdds, V>(x + c, summand + c));
    });
    for (int64_t pixel = 0; pixel < in.pixels; ++pixel, x += in.x_pixel) {
        for_channels(in.channels, [&](int64_t c, auto width) {
            using V = decltype(width);
            __builtin_prefetch(x + c + kPixelsAhead * in.x_pixel);
            const V value = value_of_sum<kAdds, V>(x + c, summand + c);
            if constexpr (kAdds)
                store(total + c, value);
            const V excess = value - load<V>(pivot + c);
            store(sums + c, load<V>(sums + c) + excess);
            store(squares + c, load<V>(squares + c) + excess * excess);
        });
        if constexpr (kAdds)
            summand += in.summand_pixel, total += in.total_pixel;
    }
}

template <typename T> void sum_moments(const MomentsInput<T>& in, float* pivot, float* sums) {
    const auto sum = in.summand != nullptr ? sum_moments_of<true, T> : sum_moments_of<false, T>;
    sum(in, pivot, sums);
}

template <typename V, typename T> V normalised(const NormInput<T>& n, V x, int64_t channel) {
    return x * load<V>(n.scale + channel) + load<V>(n.shift + channel);
}

template <typename T, typename Out>
void activate(const NormInput<T>& input, Out* out, int64_t out_pixel) {
    const NormInput<T> n = input; // in registers, as no store can change it
    const T* x = n.x;
    for (int64_t pixel = 0; pixel < n.pixels; ++pixel, x += n.x_pixel, out += out_pixel)
        for_channels(n.channels, [&](int64_t c, auto width) {
            using V = decltype(width);
            __builtin_prefetch(x + c + kPixelsAhead * n.x_pixel);
            const V value = normalised(n, load<V>(x + c), c);
            const V active = passing(value, value);
            store(out + c, std::is_same_v<T, Out> ? active : rounded_to<T>(active));
        });
}

template <typename T>
void sum_gradient(const NormInput<T>& input, const T* grad, const float* mean, float* sums) {
    const NormInput<T> n = input;
    const T* x = n.x;
    float* products = sums + n.channels;
    for (int64_t pixel = 0; pixel < n.pixels; ++pixel, x += n.x_pixel, grad += n.channels)
        for_channels(n.channels, [&](int64_t c, auto width) {
            using V = decltype(width);
            __builtin_prefetch(x + c + kPixelsAhead * n.x_pixel);
            const V value = load<V>(x + c);
            const V passed = passing(normalised(n, value, c), load<V>(grad + c));
            store(sums + c, load<V>(sums + c) + passed);
            const V product = passed * (value - load<V>(mean + c));
            store(products + c, load<V>(products + c) + product);
        });
}

// kOfBatch: with the moments' part. If it is zero, 0 times a value not finite would be NaN.
template <bool kOfBatch, bool kAdds, typename T>
void input_gradient_of(const NormInput<T>& input, const T* grad, const float* mean,
                       const float* factor, const float* offset, GradX<T> grad_x) {
    const NormInput<T> n = input;
    const T* x = n.x;
    T* out = grad_x.first;
    const T* added = grad_x.added;
    for (int64_t pixel = 0; pixel < n.pixels; ++pixel) {
        for_channels(n.channels, [&](int64_t c, auto width) {
            using V = decltype(width);
            __builtin_prefetch(x + c + kPixelsAhead * n.x_pixel);
            if constexpr (kAdds)
                __builtin_prefetch(added + c + kPixelsAhead * grad_x.added_pixel);
            const V value = load<V>(x + c);
            const V passed = passing(normalised(n, value, c), load<V>(grad + c));
            V centred = passed;
            if constexpr (kOfBatch)
                centred -= (value - load<V>(mean + c)) * load<V>(factor + c) + load<V>(offset + c);
            V result = centred * load<V>(n.scale + c);
            if constexpr (kAdds)
                result += load<V>(added + c);
            store(out + c, result);
        });
        x += n.x_pixel, grad += n.channels, out += grad_x.pixel;
        if constexpr (kAdds)
            added += grad_x.added_pixel;
    }
}

template <bool kAdds, typename T>
void input_gradient_to(const NormInput<T>& n, const T* grad, const float* mean, const float* factor,
                       const float* offset, GradX<T> grad_x) {
    const auto gradient =
        factor != nullptr ? input_gradient_of<true, kAdds, T> : input_gradient_of<false, kAdds, T>;
    gradient(n, grad, mean, factor, offset, grad_x);
}

template <typename T>
void input_gradient(const NormInput<T>& n, const T* grad, const float* mean, const float* factor,
                    const float* offset, GradX<T> grad_x) {
    const auto gradient =
        grad_x.added != nullptr ? input_gradient_to<true, T> : input_gradient_to<false, T>;
    gradient(n, grad, mean, factor, offset, grad_x);
}

template <typename T> constexpr BnReluPasses<T> passes() {
    return {sum_moments<T>, activate<T, T>, activate<T, float>, sum_gradient<T>, input_gradient<T>};
}

} // namespace
} // namespace maskedconv
