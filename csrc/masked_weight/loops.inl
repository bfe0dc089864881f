// The element-wise passes of masked_weight. Included by loops_<isa>.cpp, which sets kWidth.
#include "common/halves.inl"
#include "masked_weight/loops.h"

namespace maskedconv {
namespace {

typedef int32_t Keys __attribute__((vector_size(kWidth * sizeof(int32_t))));

template <typename V> struct KeysOf {
    using Type = Keys;
};
template <> struct KeysOf<float> {
    using Type = int32_t;
};

// The score's bits without the sign: NaN have keys above infinity.
template <typename V> typename KeysOf<V>::Type keys_at(const float* score) {
    typename KeysOf<V>::Type keys;
    std::memcpy(&keys, score, sizeof keys);
    return keys & 0x7fffffff;
}

// Calls body(index, constant width) for all elements: vectors, and then one by one.
template <typename F> void for_elements(int64_t elements, const F& body) {
    constexpr int64_t kAtOnce = 4 * kWidth;
    int64_t i = 0;
    for (; i + kAtOnce <= elements; i += kAtOnce)
        for (int64_t j = 0; j < kAtOnce; j += kWidth)
            body(i + j, Vector());
    for (; i < elements; ++i)
        body(i, float());
}

// The sign as in PyTorch: 0 for zeros and NaN.
template <typename V> V sign(V value) {
    const V zero = {};
    const V one = zero + 1.0f;
    return value > zero ? one : (value < zero ? -one : zero);
}

template <typename V> V magnitude(V value) { return value_of(bits_of(value) & 0x7fffffffu); }

template <bool kBinary, typename T> void mask(const MaskedElements& m, float factor, T* out) {
    for_elements(m.elements, [&](int64_t i, auto width) {
        using V = decltype(width);
        const V zero = {};
        const V nan = zero + __builtin_nanf("");
        const auto keys = keys_at<V>(m.score + i);
        const V weight = load<V>(m.weight + i);
        const V value = (kBinary ? sign(weight) : weight) * factor;
        const V kept = keys > m.limit ? value : zero;
        store(out + i, keys > static_cast<int32_t>(kInfinityKey) ? nan : kept);
    });
}

template <bool kBinary, typename T> void score_grad(const ScoreGrad<T>& g, float* out) {
    for_elements(g.elements, [&](int64_t i, auto width) {
        using V = decltype(width);
        const V weight = load<V>(g.weight + i), score = load<V>(g.score + i);
        const V direction = score == score ? sign(score) : score;
        const V factor = (kBinary ? magnitude(weight) : weight) * direction;
        store(out + i, factor * g.scale * load<V>(g.grad + i));
    });
}

constexpr int kLanes = 16;  // of a sum, as many for each instruction set
constexpr int kChunk = 512; // elements whose magnitudes lie in a buffer before they are added

// The magnitudes of the kept weights and zeros, and how many are kept.
int64_t keep_magnitudes(const MaskedElements& m, float* kept) {
    for_elements(m.elements, [&](int64_t i, auto width) {
        using V = decltype(width);
        const V zero = {};
        const V nan = zero + __builtin_nanf("");
        const auto keys = keys_at<V>(m.score + i);
        const V value = keys > m.limit ? magnitude(load<V>(m.weight + i)) : zero;
        store(kept + i, keys > static_cast<int32_t>(kInfinityKey) ? nan : value);
    });
    int count = 0;
    for (int64_t i = 0; i < m.elements; ++i)
        count += keys_at<float>(m.score + i) > m.limit;
    return count;
}

KeptSum sum_kept(const MaskedElements& m) {
    double sums[kLanes] = {};
    KeptSum total{};
    for (int64_t first = 0; first < m.elements; first += kChunk) {
        float kept[kChunk] = {};
        const int64_t elements = m.elements - first < kChunk ? m.elements - first : kChunk;
        total.count +=
            keep_magnitudes({m.weight + first, m.score + first, elements, m.limit}, kept);
        for (int i = 0; i < kChunk; i += kLanes)
            for (int lane = 0; lane < kLanes; ++lane)
                sums[lane] += kept[i + lane];
    }
    for (const double sum : sums)
        total.magnitudes += sum;
    return total;
}

template <typename T> constexpr MaskedWeightPasses<T> passes() {
    return {{mask<false, T>, mask<true, T>}, {score_grad<false, T>, score_grad<true, T>}};
}

} // namespace
} // namespace maskedconv
