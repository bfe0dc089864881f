// The masked weight and the gradient of its scores on CUDA, in memory order.
#include <algorithm>

#include "masked_weight/cuda/kept.h"

namespace maskedconv {
namespace {

constexpr int kWide = 4; // elements of a thread, if their number is a multiple

struct MaskLaunch {
    MaskTensors tensors;
    KeptScores scores;
    int elements, chunk; // of a part
    int num_parts;
    double scale;
};

__device__ __forceinline__ KeptPart joined(const KeptPart& a, const KeptPart& b) {
    return {a.magnitudes + b.magnitudes, a.count + b.count};
}

// The sum of all threads' parts, always in the same order.
__device__ __forceinline__ KeptPart sum_of_block(const KeptPart& part) {
    KeptPart* shared = reinterpret_cast<KeptPart*>(shared_memory());
    const int thread = static_cast<int>(threadIdx.x);
    shared[thread] = part;
    for (int half = kMaskThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half)
            shared[thread] = joined(shared[thread], shared[thread + half]);
    }
    __syncthreads();
    return shared[0];
}

// A block adds up a part of the elements.
__global__ void __launch_bounds__(kMaskThreads) sums_kernel(const MaskLaunch a) {
    const KeptTest is_kept(a.scores);
    const int64_t begin = int64_t{blockIdx.x} * a.chunk;
    const int64_t end = begin + a.chunk < a.elements ? begin + a.chunk : a.elements;
    KeptPart part{0, 0};
    for (int64_t i = begin + threadIdx.x; i < end; i += kMaskThreads) {
        const float score = a.tensors.score[i];
        if (!is_kept(score, static_cast<int>(i)))
            continue;
        const float magnitude = key_of(score) == kNanKey ? score : fabsf(a.tensors.weight[i]);
        part = joined(part, {magnitude, 1});
    }
    part = sum_of_block(part);
    if (threadIdx.x == 0)
        a.tensors.parts[blockIdx.x] = part;
}

// Factor of the weight or its sign.
__device__ __forceinline__ float factor_of(const MaskLaunch& a) {
    if (a.tensors.parts == nullptr)
        return static_cast<float>(a.scale);
    static_assert(kKeptParts <= kMaskThreads, "each part has a thread");
    const int part = static_cast<int>(threadIdx.x);
    const KeptPart sum = sum_of_block(part < a.num_parts ? a.tensors.parts[part] : KeptPart{0, 0});
    return static_cast<float>(sum.magnitudes / (sum.count < 1 ? 1 : sum.count) * a.scale);
}

__device__ __forceinline__ float sign(float value) {
    return static_cast<float>(value > 0.0f) - static_cast<float>(value < 0.0f);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kMaskThreads) mask_kernel(const MaskLaunch a) {
    const float factor = factor_of(a);
    const int64_t first = (int64_t{blockIdx.x} * kMaskThreads + threadIdx.x) * kWidth;
    if (first >= a.elements)
        return;
    const int element = static_cast<int>(first);
    const KeptTest is_kept(a.scores);
    const auto weight = load<kWidth>(a.tensors.weight + element);
    const auto score = load<kWidth>(a.tensors.score + element);
    Vector<T, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
        float value = weight.values[i];
        value = (a.tensors.parts == nullptr ? value : sign(value)) * factor;
        value = key_of(score.values[i]) == kNanKey ? not_a_number() : value;
        out.values[i] = from_float32<T>(is_kept(score.values[i], element + i) ? value : 0.0f);
    }
    store(static_cast<T*>(a.tensors.out) + element, out);
}

struct GradLaunch {
    ScoreGradTensors tensors;
    int elements;
    bool binary;
    float scale;
};

template <typename T, int kWidth>
__global__ void __launch_bounds__(kMaskThreads) score_grad_kernel(const GradLaunch a) {
    const int64_t first = (int64_t{blockIdx.x} * kMaskThreads + threadIdx.x) * kWidth;
    if (first >= a.elements)
        return;
    const int element = static_cast<int>(first);
    const auto grad = load<kWidth>(static_cast<const T*>(a.tensors.grad) + element);
    const auto weight = load<kWidth>(a.tensors.weight + element);
    const auto score = load<kWidth>(a.tensors.score + element);
    Vector<float, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
        const float size = a.binary ? fabsf(weight.values[i]) : weight.values[i];
        const bool is_nan = key_of(score.values[i]) == kNanKey;
        const float factor = size * (is_nan ? not_a_number() : sign(score.values[i]));
        out.values[i] = factor * a.scale * to_float32(grad.values[i]);
    }
    store(a.tensors.out + element, out);
}

// Whether vectors of so many bytes fit.
bool is_aligned(const void* data, size_t bytes) {
    return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

dim3 grid_of(int64_t elements, int width) {
    const int64_t of_block = int64_t{kMaskThreads} * width;
    return dim3(static_cast<unsigned>((elements + of_block - 1) / of_block));
}

// The elements of a part, so many that there are at most kKeptParts of them.
int chunk_of(int64_t elements) {
    const int64_t blocks = (elements + kMaskThreads - 1) / kMaskThreads;
    return static_cast<int>((blocks + kKeptParts - 1) / kKeptParts) * kMaskThreads;
}

} // namespace

void masked_weight_cuda(const MaskTensors& tensors, const MaskMemory& memory,
                        const DeviceThreshold& threshold, double scale, ElementType type,
                        uintptr_t stream) {
    constexpr int kSharedBytes = kMaskThreads * sizeof(KeptPart);
    const int elements = static_cast<int>(memory.elements), chunk = chunk_of(elements);
    const int num_parts = static_cast<int>((memory.elements + chunk - 1) / chunk);
    const KeptScores scores{threshold.value, threshold.first, RowMajor(memory)};
    const MaskLaunch a{tensors, scores, elements, chunk, num_parts, scale};
    if (tensors.parts != nullptr)
        launch("masked_weight", &sums_kernel, dim3(static_cast<unsigned>(num_parts)), kMaskThreads,
               kSharedBytes, stream, a);
    for_element(type, [&](auto element) {
        using T = decltype(element);
        const bool wide = elements % kWide == 0 && is_aligned(tensors.weight, 16) &&
                          is_aligned(tensors.score, 16) &&
                          is_aligned(tensors.out, sizeof(T) * kWide);
        auto* kernel = wide ? &mask_kernel<T, kWide> : &mask_kernel<T, 1>;
        launch("masked_weight", kernel, grid_of(elements, wide ? kWide : 1), kMaskThreads,
               kSharedBytes, stream, a);
    });
}

void score_grad_cuda(const ScoreGradTensors& tensors, int64_t elements, bool binary, float scale,
                     ElementType type, uintptr_t stream) {
    const GradLaunch a{tensors, static_cast<int>(elements), binary, scale};
    for_element(type, [&](auto element) {
        using T = decltype(element);
        const bool wide = elements % kWide == 0 && is_aligned(tensors.weight, 16) &&
                          is_aligned(tensors.score, 16) && is_aligned(tensors.out, 16) &&
                          is_aligned(tensors.grad, sizeof(T) * kWide);
        auto* kernel = wide ? &score_grad_kernel<T, kWide> : &score_grad_kernel<T, 1>;
        launch("score_grad", kernel, grid_of(elements, wide ? kWide : 1), kMaskThreads, 0, stream,
               a);
    });
}

} // namespace maskedconv
