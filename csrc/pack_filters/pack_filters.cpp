#include "pack_filters/pack_filters.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

namespace maskedconv {
namespace {

struct BFloat16 {
    uint16_t bits;
};

template <typename T> T convert(T value, T*) { return value; }

// Round to nearest, ties to even, as PyTorch does; NaN stays a NaN.
BFloat16 convert(float value, BFloat16*) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value)
        return {0x7FC0};
    return {static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)};
}

// The bank's dimensions from the slowest to the fastest in memory, so that writes are sequential.
std::array<int, 4> order_of(const FilterBank& bank) {
    std::array<int, 4> order;
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return bank.strides[a] > bank.strides[b]; });
    return order;
}

template <typename From, typename To>
void pack(const FilterBank& bank, const FilterPart& part, int slice_dim) {
    const auto order = order_of(bank);
    Four extent, from_stride, to_stride;
    for (int i = 0; i < 4; ++i) {
        const int dim = order[i];
        extent[i] = dim == slice_dim ? part.end - part.begin : bank.shape[dim];
        from_stride[i] = part.strides[dim];
        to_stride[i] = bank.strides[dim];
    }
    const From* from = static_cast<const From*>(part.data);
    To* to = static_cast<To*>(bank.data) + part.begin * bank.strides[slice_dim];
    for (int64_t a = 0; a < extent[0]; ++a)
        for (int64_t b = 0; b < extent[1]; ++b)
            for (int64_t c = 0; c < extent[2]; ++c) {
                const From* source =
                    from + a * from_stride[0] + b * from_stride[1] + c * from_stride[2];
                To* target = to + a * to_stride[0] + b * to_stride[1] + c * to_stride[2];
                for (int64_t d = 0; d < extent[3]; ++d)
                    target[d * to_stride[3]] =
                        convert(source[d * from_stride[3]], static_cast<To*>(nullptr));
            }
}

} // namespace

PackKind pack_kind(int64_t from_size, int64_t to_size) {
    if (from_size == to_size && to_size == 2)
        return PackKind::copy2;
    if (from_size == to_size && to_size == 4)
        return PackKind::copy4;
    if (from_size == to_size && to_size == 8)
        return PackKind::copy8;
    if (from_size == 4 && to_size == 2)
        return PackKind::float_to_bfloat16;
    throw std::invalid_argument("pack_filters: no conversion from elements of " +
                                std::to_string(from_size) + " bytes to " + std::to_string(to_size));
}

void pack_filters_cpu(const FilterBank& bank, const FilterPart& part, int slice_dim,
                      PackKind kind) {
    switch (kind) {
    case PackKind::copy2:
        return pack<uint16_t, uint16_t>(bank, part, slice_dim);
    case PackKind::copy4:
        return pack<uint32_t, uint32_t>(bank, part, slice_dim);
    case PackKind::copy8:
        return pack<uint64_t, uint64_t>(bank, part, slice_dim);
    case PackKind::float_to_bfloat16:
        return pack<float, BFloat16>(bank, part, slice_dim);
    }
}

} // namespace maskedconv
