#include "masked_weight/masked_weight.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common.h"

namespace maskedconv {
namespace {

template <typename T> const MaskedWeightPasses<T>& passes();
template <> const MaskedWeightPasses<float>& passes() { return masked_weight_loops().float32; }
template <> const MaskedWeightPasses<Bfloat16>& passes() { return masked_weight_loops().bfloat16; }
template <> const MaskedWeightPasses<Float16>& passes() { return masked_weight_loops().float16; }

// Calls body(elements, first) for the two parts of [begin, end): only larger keys are kept before
// the first kept tie, and also equal ones from there on. A key of NaN is above either limit.
template <typename F>
void for_parts(const MaskedWeight& p, int64_t begin, int64_t end, const F& body) {
    int32_t key;
    std::memcpy(&key, &p.threshold.value, sizeof key);
    key &= 0x7fffffff;
    const int64_t first = std::clamp(p.threshold.first, begin, end);
    const auto part = [&](int64_t from, int64_t to, int32_t limit) {
        limit = std::min(limit, static_cast<int32_t>(kInfinityKey));
        if (from < to)
            body(MaskedElements{p.weight + from, p.score + from, to - from, limit}, from);
    };
    part(begin, first, key);
    part(first, end, key - 1);
}

// Sums of blocks, added in their order.
float mean_magnitude(const MaskedWeight& p, int threads) {
    constexpr int64_t kBlock = 1 << 13;
    std::vector<KeptSum> sums(static_cast<size_t>((p.elements + kBlock - 1) / kBlock));
    const auto sum_block = [&](int64_t block) {
        const int64_t begin = block * kBlock, end = std::min(begin + kBlock, p.elements);
        KeptSum& sum = sums[static_cast<size_t>(block)];
        for_parts(p, begin, end, [&](const MaskedElements& part, int64_t) {
            const KeptSum more = masked_weight_loops().sum_kept(part);
            sum.magnitudes += more.magnitudes, sum.count += more.count;
        });
    };
    for_shares(static_cast<int64_t>(sums.size()), threads, [&](int, int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block)
            sum_block(block);
    });
    KeptSum total{};
    for (const KeptSum& sum : sums)
        total.magnitudes += sum.magnitudes, total.count += sum.count;
    const double count = static_cast<double>(std::max<int64_t>(total.count, 1));
    return static_cast<float>(total.magnitudes / count * p.scale);
}

} // namespace

const MaskedWeightLoops& masked_weight_loops() {
    static const MaskedWeightLoops& loops = chosen_loops<MaskedWeightLoops>({
        &kMaskedWeightGeneric,
#if defined(__x86_64__)
        &kMaskedWeightAvx2,
        &kMaskedWeightAvx512,
#endif
    });
    return loops;
}

template <typename T> void masked_weight_cpu(const MaskedWeight& p, T* out, int threads) {
    threads = threads_for(p.elements, threads);
    const float factor = p.binary ? mean_magnitude(p, threads) : static_cast<float>(p.scale);
    const MaskLoop<T> mask = passes<T>().mask[p.binary];
    for_shares(p.elements, threads, [&](int, int64_t begin, int64_t end) {
        for_parts(p, begin, end, [&](const MaskedElements& part, int64_t first) {
            mask(part, factor, out + first);
        });
    });
}

template <typename T>
void score_grad_cpu(const ScoreGrad<T>& p, bool binary, float* out, int threads) {
    const ScoreGradLoop<T> loop = passes<T>().score_grad[binary];
    for_shares(p.elements, threads_for(p.elements, threads), [&](int, int64_t begin, int64_t end) {
        loop({p.grad + begin, p.weight + begin, p.score + begin, end - begin, p.scale},
             out + begin);
    });
}

#define INSTANTIATE(T)                                                                             \
    template void masked_weight_cpu(const MaskedWeight&, T*, int);                                 \
    template void score_grad_cpu(const ScoreGrad<T>&, bool, float*, int);
INSTANTIATE(float)
INSTANTIATE(Bfloat16)
INSTANTIATE(Float16)
#undef INSTANTIATE

} // namespace maskedconv
