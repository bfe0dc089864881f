// The threshold of a mask on CUDA: a launch for each digit of the keys, and of the row-major
// indices of the scores that equal the threshold. A launch counts the values of its digit; the
// blocks of the next one choose by the counts.
#include <algorithm>

#include "masked_weight/cuda/kept.h"

namespace maskedconv {
namespace {

constexpr int kBins = 2048;
constexpr int kIndexBits = 11;
constexpr int kKeyLevels = 3;
constexpr int kMostLevels = kKeyLevels + 3; // indices of 31 bits
constexpr int kScoresOfThread = 16;         // at least
constexpr int kBlocks = 1024;               // at most

// The first digits of the wanted score, and its rank among the scores with these digits.
struct SelectionState {
    unsigned key, index, rank;
};

struct Digit {
    int shift, bits;
    bool of_index;
};

struct SelectLaunch {
    const float* score;
    int elements;
    RowMajor row_major;
    unsigned num_dropped;   // the rank of the first kept score
    SelectionState* states; // [levels + 1]
    unsigned* counts;       // [levels, kBins]
    int level;
    Digit digit, previous;
    DeviceThreshold threshold;
};

// Shared memory of a block.
struct SelectShared {
    unsigned bins[kBins];
    unsigned sums[kMaskThreads];
    unsigned digit, rank;
};

// Finds the bin of the wanted score in the counts of the level before.
__device__ __forceinline__ void choose_bin(const SelectLaunch& a, unsigned rank,
                                           SelectShared& shared) {
    constexpr int kOwn = kBins / kMaskThreads;
    const int thread = static_cast<int>(threadIdx.x);
    const unsigned* own = a.counts + (a.level - 1) * kBins + thread * kOwn;
    unsigned sum = 0;
    for (int i = 0; i < kOwn; ++i)
        sum += own[i];
    shared.sums[thread] = sum;
    __syncthreads();
    unsigned before = 0;
    for (int other = 0; other < thread; ++other)
        before += shared.sums[other];
    if (rank < before || rank - before >= sum)
        return;
    int bin = 0;
    for (; rank - before >= own[bin]; ++bin)
        before += own[bin];
    shared.digit = static_cast<unsigned>(thread * kOwn + bin);
    shared.rank = rank - before;
}

// The state of this level; the first block leaves it for later launches.
__device__ __forceinline__ SelectionState state_of(const SelectLaunch& a, SelectShared& shared) {
    SelectionState state{0, 0, a.num_dropped};
    if (a.level > 0) {
        state = a.states[a.level - 1];
        choose_bin(a, state.rank, shared);
    }
    __syncthreads();
    if (a.level > 0) {
        const unsigned digit = shared.digit << a.previous.shift;
        (a.previous.of_index ? state.index : state.key) |= digit;
        state.rank = shared.rank;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0)
        a.states[a.level] = state;
    return state;
}

// Whether all scores that equal the threshold are known to be kept; no index is needed then.
__device__ __forceinline__ bool is_known(const SelectLaunch& a) {
    return a.level > kKeyLevels && a.states[kKeyLevels].rank == 0;
}

__device__ __forceinline__ bool starts_with(unsigned digits, unsigned value, const Digit& digit) {
    const int above = digit.shift + digit.bits;
    return above > 31 || value >> above == digits >> above;
}

__device__ __forceinline__ void count_scores(const SelectLaunch& a, const SelectionState& state,
                                             unsigned* bins) {
    const unsigned mask = (1u << a.digit.bits) - 1;
    const int step = static_cast<int>(gridDim.x * blockDim.x);
    for (int64_t i = blockIdx.x * blockDim.x + threadIdx.x; i < a.elements; i += step) {
        const int element = static_cast<int>(i);
        const unsigned key = key_of(a.score[element]);
        unsigned value = key;
        if (a.digit.of_index) {
            if (key != state.key)
                continue;
            value = static_cast<unsigned>(a.row_major.of(element));
        }
        if (starts_with(a.digit.of_index ? state.index : state.key, value, a.digit))
            add_atomically(bins + (value >> a.digit.shift & mask), 1u);
    }
}

__global__ void __launch_bounds__(kMaskThreads) digit_kernel(const SelectLaunch a) {
    SelectShared& shared = *reinterpret_cast<SelectShared*>(shared_memory());
    if (is_known(a))
        return;
    for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kMaskThreads)
        shared.bins[bin] = 0;
    const SelectionState state = state_of(a, shared);
    if (a.level == kKeyLevels && state.rank == 0)
        return;
    count_scores(a, state, shared.bins);
    __syncthreads();
    for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kMaskThreads)
        if (shared.bins[bin] > 0)
            add_atomically(a.counts + a.level * kBins + bin, shared.bins[bin]);
}

// After the last digit, in one block.
__global__ void __launch_bounds__(kMaskThreads) threshold_kernel(const SelectLaunch a) {
    SelectShared& shared = *reinterpret_cast<SelectShared*>(shared_memory());
    const bool known = is_known(a);
    const SelectionState state = known ? a.states[kKeyLevels] : state_of(a, shared);
    if (threadIdx.x == 0) {
        *a.threshold.value = __uint_as_float(state.key);
        *a.threshold.first = state.index;
    }
}

// All levels' digits; returns their number.
int digits_of(int64_t elements, Digit (&digits)[kMostLevels]) {
    digits[0] = {20, 11, false}, digits[1] = {10, 10, false}, digits[2] = {0, 10, false};
    int levels = 0;
    while (elements - 1 >= int64_t{1} << (levels * kIndexBits))
        ++levels;
    for (int i = 0; i < levels; ++i)
        digits[kKeyLevels + i] = {(levels - 1 - i) * kIndexBits, kIndexBits, true};
    return kKeyLevels + levels;
}

} // namespace

Two find_threshold_cuda_space(int64_t elements) {
    Digit digits[kMostLevels];
    const int levels = digits_of(elements, digits);
    constexpr int kWords = sizeof(SelectionState) / sizeof(unsigned);
    return {int64_t{levels} * kBins, int64_t{levels + 1} * kWords};
}

void find_threshold_cuda(const float* score, const MaskMemory& memory, int64_t num_kept,
                         const DeviceThreshold& threshold, const SelectionSpace& space,
                         uintptr_t stream) {
    Digit digits[kMostLevels];
    const int levels = digits_of(memory.elements, digits);
    SelectLaunch a{score,
                   static_cast<int>(memory.elements),
                   RowMajor(memory),
                   static_cast<unsigned>(memory.elements - num_kept),
                   reinterpret_cast<SelectionState*>(space.states),
                   space.counts,
                   0,
                   {},
                   {},
                   threshold};
    constexpr int64_t kOfBlock = kMaskThreads * kScoresOfThread;
    const int64_t blocks = std::min<int64_t>((memory.elements + kOfBlock - 1) / kOfBlock, kBlocks);
    for (; a.level < levels; ++a.level) {
        a.digit = digits[a.level];
        launch("find_threshold", &digit_kernel, dim3(static_cast<unsigned>(blocks)), kMaskThreads,
               sizeof(SelectShared), stream, a);
        a.previous = a.digit;
    }
    launch("find_threshold", &threshold_kernel, dim3(1), kMaskThreads, sizeof(SelectShared), stream,
           a);
}

} // namespace maskedconv
