#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "common.h"
#include "masked_weight/masked_weight.h"

namespace maskedconv {
namespace {

// Keys have 31 bits. A level looks at `bits` of them, from `shift` on.
struct Digit {
    int shift, bits;

    int bins() const { return 1 << bits; }
    size_t of(uint32_t key) const { return (key >> shift) & static_cast<uint32_t>(bins() - 1); }
};
constexpr Digit kDigits[] = {{20, 11}, {10, 10}, {0, 10}};

inline uint32_t key_of(const float* score) {
    uint32_t bits;
    std::memcpy(&bits, score, sizeof bits);
    bits &= 0x7fffffff;
    return bits > kInfinityKey ? kNanKey : bits;
}
inline uint32_t key_of(const uint32_t* key) { return *key; }

// Number of keys, [share][bin].
using Counts = std::vector<std::vector<int64_t>>;

// Neighbouring keys are counted in different copies: to count one waits for the last of its bin.
template <typename Source>
void count(const Source* keys, int64_t size, Digit digit, std::vector<int64_t>& bins) {
    constexpr int kCopies = 4;
    std::vector<uint32_t> copies(static_cast<size_t>(kCopies * digit.bins()));
    int64_t i = 0;
    for (; i + kCopies <= size; i += kCopies)
        for (int copy = 0; copy < kCopies; ++copy)
            ++copies[digit.of(key_of(keys + i + copy)) * kCopies + static_cast<size_t>(copy)];
    for (; i < size; ++i)
        ++copies[digit.of(key_of(keys + i)) * kCopies];
    for (size_t bin = 0; bin < bins.size(); ++bin)
        for (int copy = 0; copy < kCopies; ++copy)
            bins[bin] += copies[bin * kCopies + static_cast<size_t>(copy)];
}

// The bin of the key at `rank` of the ascending order; `rank` becomes its rank within the bin.
size_t find_bin(const Counts& counts, int64_t& rank) {
    for (size_t bin = 0;; ++bin) {
        int64_t size = 0;
        for (const auto& share : counts)
            size += share[bin];
        if (rank < size)
            return bin;
        rank -= size;
    }
}

struct Keys {
    std::unique_ptr<uint32_t[]> data;
    int64_t size = 0;
};

// One level of the selection: the keys of the bin that holds the one at `rank`, in any order.
template <typename Source>
Keys narrow(const Source* keys, int64_t size, Digit digit, int64_t& rank, int threads) {
    Counts counts(static_cast<size_t>(threads),
                  std::vector<int64_t>(static_cast<size_t>(digit.bins())));
    for_shares(size, threads, [&](int share, int64_t begin, int64_t end) {
        count(keys + begin, end - begin, digit, counts[static_cast<size_t>(share)]);
    });
    const size_t bin = find_bin(counts, rank);
    std::vector<int64_t> firsts;
    Keys found;
    for (const auto& share : counts) {
        firsts.push_back(found.size);
        found.size += share[bin];
    }
    found.data.reset(new uint32_t[static_cast<size_t>(found.size)]);
    for_shares(size, threads, [&](int share, int64_t begin, int64_t end) {
        uint32_t* next = found.data.get() + firsts[static_cast<size_t>(share)];
        for (int64_t i = begin; i < end; ++i) {
            const uint32_t key = key_of(keys + i);
            if (digit.of(key) == bin)
                *next++ = key;
        }
    });
    return found;
}

Keys copy_keys(const float* score, int64_t size) {
    Keys keys{std::unique_ptr<uint32_t[]>(new uint32_t[static_cast<size_t>(size)]), size};
    std::transform(score, score + size, keys.data.get(),
                   [](const float& value) { return key_of(&value); });
    return keys;
}

// The key at `rank` of the ascending order; `rank` becomes its rank among equal keys. Few keys are
// partitioned, many are narrowed down by their digits.
uint32_t find_key(const float* score, int64_t elements, int64_t& rank, int threads) {
    constexpr int64_t kFew = 1024;
    Keys keys = elements <= kFew
                    ? copy_keys(score, elements)
                    : narrow(score, elements, kDigits[0], rank, threads_for(elements, threads));
    for (const Digit digit : {kDigits[1], kDigits[2]})
        if (keys.size > kFew)
            keys = narrow(keys.data.get(), keys.size, digit, rank, threads_for(keys.size, threads));
    uint32_t* const begin = keys.data.get();
    if (keys.size > kFew)
        return *begin; // all are equal
    std::nth_element(begin, begin + rank, begin + keys.size);
    const uint32_t key = begin[rank];
    rank -= std::count_if(begin, begin + rank, [&](uint32_t other) { return other < key; });
    return key;
}

// The index of the score with that key that comes after `before` others with it.
int64_t find_tie(const float* score, int64_t elements, uint32_t key, int64_t before) {
    constexpr int64_t kBlock = 1024; // counted without a branch
    int64_t first = 0;
    for (;; first += kBlock) {
        const int64_t end = std::min(first + kBlock, elements);
        int ties = 0;
        for (int64_t i = first; i < end; ++i)
            ties += key_of(score + i) == key;
        if (ties > before)
            break;
        before -= ties;
    }
    for (;; ++first)
        if (key_of(score + first) == key && before-- == 0)
            return first;
}

} // namespace

int threads_for(int64_t elements, int threads) {
    constexpr int64_t kOfOne = 1 << 15; // as in PyTorch's element-wise operators
    return static_cast<int>(std::clamp<int64_t>(elements / kOfOne, 1, threads));
}

ScoreThreshold find_threshold_cpu(const float* score, int64_t elements, int64_t num_kept,
                                  int threads) {
    int64_t rank = elements - num_kept;
    const uint32_t key = find_key(score, elements, rank, threads);
    ScoreThreshold threshold{0, rank == 0 ? 0 : find_tie(score, elements, key, rank)};
    std::memcpy(&threshold.value, &key, sizeof key);
    return threshold;
}

} // namespace maskedconv
