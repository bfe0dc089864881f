#include "bn_relu/bn_relu.h"

#include <algorithm>
#include <vector>

#include "common.h"

namespace maskedconv {
namespace {

// Added up in single precision before they go into the sums in double precision.
constexpr int64_t kPixelsInSingle = 128;

const BnReluLoops& loops() {
    static const BnReluLoops& loops = chosen_loops<BnReluLoops>({
        &kBnReluGeneric,
#if defined(__x86_64__)
        &kBnReluAvx2,
        &kBnReluAvx512,
#endif
    });
    return loops;
}

template <typename T> NormInput<T> part(const NormInput<T>& n, int64_t begin, int64_t end) {
    NormInput<T> pixels = n;
    pixels.x += begin * n.x_pixel;
    pixels.pixels = end - begin;
    return pixels;
}

struct Sums {
    std::vector<float> single;   // [gradient past the ReLU, the same times (x - mean)][channel]
    std::vector<double> doubles; // alike
};

// The sums over all pixels, in the order of Sums.
template <typename T>
std::vector<double> sum_gradient(const NormInput<T>& n, const NormBackward<T>& b, int threads) {
    const size_t size = static_cast<size_t>(2 * n.channels);
    std::vector<Sums> shares(static_cast<size_t>(threads),
                             {std::vector<float>(size), std::vector<double>(size)});
    const BnReluPasses<T>& loops = bn_relu_passes<T>();
    for_shares(n.pixels, threads, [&](int share, int64_t begin, int64_t end) {
        Sums& sums = shares[static_cast<size_t>(share)];
        for (int64_t pixel = begin; pixel < end; pixel += kPixelsInSingle) {
            const int64_t last = std::min(pixel + kPixelsInSingle, end);
            std::fill(sums.single.begin(), sums.single.end(), 0.0f);
            loops.sum_gradient(part(n, pixel, last), b.grad + pixel * n.channels, b.mean,
                               sums.single.data());
            for (size_t i = 0; i < size; ++i)
                sums.doubles[i] += sums.single[i];
        }
    });
    std::vector<double> total(size);
    for (const Sums& sums : shares)
        for (size_t i = 0; i < size; ++i)
            total[i] += sums.doubles[i];
    return total;
}

} // namespace

template <> const BnReluPasses<float>& bn_relu_passes() { return loops().float32; }
template <> const BnReluPasses<Bfloat16>& bn_relu_passes() { return loops().bfloat16; }
template <> const BnReluPasses<Float16>& bn_relu_passes() { return loops().float16; }

template <typename T> void bn_relu_cpu(const NormInput<T>& n, T* out, int threads) {
    const BnReluPasses<T>& loops = bn_relu_passes<T>();
    for_shares(n.pixels, threads, [&](int, int64_t begin, int64_t end) {
        loops.activate(part(n, begin, end), out + begin * n.channels, n.channels);
    });
}

// With g the gradient past the ReLU, d the inverse deviation, y = (x - mean) d and M pixels, the
// gradients are sum(g) for beta, sum(g y) for gamma, and scale (g - sum(g) / M - y sum(g y) / M)
// for x.
template <typename T>
void bn_relu_backward_cpu(const NormInput<T>& n, const NormBackward<T>& b, int threads) {
    const size_t channels = static_cast<size_t>(n.channels);
    std::vector<float> factor(channels), offset(channels);
    if (b.of_batch || b.grad_weight != nullptr || b.grad_bias != nullptr) {
        const std::vector<double> sums = sum_gradient(n, b, threads);
        for (size_t c = 0; c < channels; ++c) {
            const double sum = sums[c], product = sums[channels + c] * b.inverse_deviation[c];
            if (b.grad_bias != nullptr)
                b.grad_bias[c] = static_cast<float>(sum);
            if (b.grad_weight != nullptr)
                b.grad_weight[c] = static_cast<float>(product);
            if (b.of_batch) {
                const double pixels = static_cast<double>(n.pixels);
                factor[c] = static_cast<float>(product / pixels * b.inverse_deviation[c]);
                offset[c] = static_cast<float>(sum / pixels);
            }
        }
    }
    if (b.grad_x.first == nullptr)
        return;
    const BnReluPasses<T>& loops = bn_relu_passes<T>();
    for_shares(n.pixels, threads, [&](int, int64_t begin, int64_t end) {
        GradX<T> grad_x = b.grad_x;
        grad_x.first += begin * grad_x.pixel;
        if (grad_x.added != nullptr)
            grad_x.added += begin * grad_x.added_pixel;
        loops.input_gradient(part(n, begin, end), b.grad + begin * n.channels, b.mean,
                             b.of_batch ? factor.data() : nullptr, offset.data(), grad_x);
    });
}

template void bn_relu_cpu(const NormInput<float>&, float*, int);
template void bn_relu_cpu(const NormInput<Bfloat16>&, Bfloat16*, int);
template void bn_relu_cpu(const NormInput<Float16>&, Float16*, int);
template void bn_relu_backward_cpu(const NormInput<float>&, const NormBackward<float>&, int);
template void bn_relu_backward_cpu(const NormInput<Bfloat16>&, const NormBackward<Bfloat16>&, int);
template void bn_relu_backward_cpu(const NormInput<Float16>&, const NormBackward<Float16>&, int);

} // namespace maskedconv
