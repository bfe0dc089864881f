// The test for kept scores in a kernel.
#pragma once

#include "common/cuda/elements.h"
#include "common/divisor.h"
#include "masked_weight/cuda/masked_weight_cuda.h"

namespace maskedconv {

constexpr int kMaskThreads = 256;
// Magnitudes as the bits of a float without its sign, which order like integers.
constexpr uint32_t kInfinityKey = 0x7f800000;
constexpr uint32_t kNanKey = 0x7fc00000; // for every NaN, the largest

__device__ __forceinline__ uint32_t key_of(float score) {
    const uint32_t key = __float_as_uint(score) & 0x7fffffffu;
    return key > kInfinityKey ? kNanKey : key;
}

// Row-major indices of elements in memory order.
struct RowMajor {
    Divisor sizes[3]; // of all dimensions except the slowest, the fastest first
    int steps[4];     // the fastest first
    bool same;        // as the memory order

    explicit RowMajor(const MaskMemory& memory) {
        for (int k = 0; k < 4; ++k)
            steps[k] = static_cast<int>(memory.steps[static_cast<size_t>(3 - k)]);
        for (int k = 0; k < 3; ++k)
            sizes[k] = Divisor(memory.sizes[static_cast<size_t>(3 - k)]);
        same = memory.sizes[3] == memory.elements && steps[0] == 1;
    }

    __device__ __forceinline__ int of(int element) const {
        if (same)
            return element;
        int index = 0;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            index += (k < 3 ? sizes[k].remainder(element) : element) * steps[k];
            element = k < 3 ? sizes[k].quotient(element) : 0;
        }
        return index;
    }
};

struct KeptScores {
    const float* value;
    const int64_t* first;
    RowMajor row_major;
};

// Whether a score is kept, one element at a time.
class KeptTest {
  public:
    __device__ __forceinline__ explicit KeptTest(const KeptScores& scores)
        : scores_(scores), key_(key_of(*scores.value)), first_(*scores.first) {}

    // NaN is kept, so that the result is NaN.
    __device__ __forceinline__ bool operator()(float score, int element) const {
        const uint32_t key = key_of(score);
        if (key == key_ && key != kNanKey)
            return scores_.row_major.of(element) >= first_;
        return key > key_ || key == kNanKey;
    }

  private:
    const KeptScores& scores_;
    uint32_t key_;
    int64_t first_;
};

__device__ __forceinline__ float not_a_number() { return __uint_as_float(kNanKey); }

} // namespace maskedconv
