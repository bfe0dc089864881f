// pack_filters on CUDA: one launch, one thread an element of the bank or four of them, in the
// bank's memory order. Indices have 32 bits, and divisions are replaced by products.
#include <algorithm>
#include <climits>

#include "common/cuda/elements.h"
#include "common/divisor.h"
#include "pack_filters/cuda/pack_filters_cuda.h"

namespace maskedconv {
namespace {

constexpr int kThreads = 256;
constexpr int kWide = 4; // elements of a thread, if they lie side by side

// Dimensions are in the bank's memory order, the fastest first; `first` is the element of index 0,
// which a part that begins later has before its data. The first dimension's strides are from one
// thread's elements to the next.
struct Strided {
    int first, strides[4];
};

struct PackLaunch {
    void* bank;
    const float *learned, *frozen;
    Strided bank_layout, learned_layout, frozen_layout;
    Divisor sizes[3]; // of all dimensions except the last
    int slice;        // which one is sliced
    int num_learned, threads;
    int width; // elements of a thread
};

template <typename To, int kWidth> __global__ void pack_filters_kernel(const PackLaunch a) {
    const int thread = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (thread >= a.threads)
        return;
    int index[4], sliced = 0;
    int rest = thread;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        index[k] = k < 3 ? a.sizes[k].remainder(rest) : rest;
        rest = k < 3 ? a.sizes[k].quotient(rest) : 0;
        sliced = k == a.slice ? index[k] : sliced;
    }
    const bool learned = sliced < a.num_learned;
    int from = learned ? a.learned_layout.first : a.frozen_layout.first;
    int to = a.bank_layout.first;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        from += index[k] * (learned ? a.learned_layout.strides[k] : a.frozen_layout.strides[k]);
        to += index[k] * a.bank_layout.strides[k];
    }
    const auto values = load<kWidth>((learned ? a.learned : a.frozen) + from);
    Vector<To, kWidth> packed;
#pragma unroll
    for (int i = 0; i < kWidth; ++i)
        packed.values[i] = from_float32<To>(values.values[i]);
    store(static_cast<To*>(a.bank) + to, packed);
}

// The bank's dimensions from the fastest to the slowest in memory. One of size 1 may have any
// stride: it comes last.
struct Order {
    int dims[4];

    explicit Order(const FilterBank& bank) : dims{0, 1, 2, 3} {
        const auto place = [&](int dim) {
            return bank.shape[dim] == 1 ? INT64_MAX : bank.strides[dim];
        };
        std::stable_sort(dims, dims + 4, [&](int x, int y) { return place(x) < place(y); });
    }
};

// Whether kWide elements lie side by side everywhere, at multiples of their size.
bool is_wide(const FilterBank& bank, const Order& order, const void* data, const Four& strides,
             int element) {
    bool wide = strides[order.dims[0]] == 1 &&
                reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(kWide * element) == 0;
    for (int k = 1; k < 4; ++k)
        wide = wide && (bank.shape[order.dims[k]] == 1 || strides[order.dims[k]] % kWide == 0);
    return wide;
}

// `begin`: the index of the sliced dimension at which the data begin. Throws std::runtime_error if
// 32 bits do not hold an index.
Strided strided(const FilterBank& bank, const Order& order, const Four& strides, int width,
                int64_t begin, int slice_dim) {
    const int64_t first = -begin * strides[slice_dim];
    int64_t span = -first;
    for (int dim = 0; dim < 4; ++dim)
        span += bank.shape[dim] * strides[dim];
    if (span > INT_MAX / 2)
        throw std::runtime_error("pack_filters: the filters are too far apart for 32 bits");
    Strided result{static_cast<int>(first), {}};
    for (int k = 0; k < 4; ++k)
        result.strides[k] = static_cast<int>(strides[order.dims[k]]) * (k == 0 ? width : 1);
    return result;
}

PackLaunch make_launch(const FilterBank& bank, const FilterPart& learned, const FilterPart& frozen,
                       int slice_dim, ElementType type) {
    const Order order(bank);
    const int* dims = order.dims;
    const auto side_by_side = [&](const void* data, const Four& strides, int element) {
        return is_wide(bank, order, data, strides, element);
    };
    const bool wide = dims[0] != slice_dim && bank.shape[dims[0]] % kWide == 0 &&
                      side_by_side(bank.data, bank.strides, type == ElementType::float32 ? 4 : 2) &&
                      side_by_side(learned.data, learned.strides, 4) &&
                      side_by_side(frozen.data, frozen.strides, 4);
    const int width = wide ? kWide : 1;
    const auto layout = [&](const Four& strides, int64_t begin) {
        return strided(bank, order, strides, width, begin, slice_dim);
    };
    PackLaunch a{};
    a.bank = bank.data;
    a.learned = static_cast<const float*>(learned.data);
    a.frozen = static_cast<const float*>(frozen.data);
    a.bank_layout = layout(bank.strides, 0);
    a.learned_layout = layout(learned.strides, learned.begin);
    a.frozen_layout = layout(frozen.strides, frozen.begin);
    a.sizes[0] = Divisor(bank.shape[dims[0]] / width);
    a.sizes[1] = Divisor(bank.shape[dims[1]]), a.sizes[2] = Divisor(bank.shape[dims[2]]);
    a.slice = static_cast<int>(std::find(dims, dims + 4, slice_dim) - dims);
    a.num_learned = static_cast<int>(learned.end);
    a.width = width;
    a.threads =
        static_cast<int>(bank.shape[0] * bank.shape[1] * bank.shape[2] * bank.shape[3]) / width;
    return a;
}

template <typename To> void launch_pack(const PackLaunch& a, uintptr_t stream) {
    const dim3 grid(static_cast<unsigned>((a.threads + kThreads - 1) / kThreads));
    auto* kernel = a.width == kWide ? &pack_filters_kernel<To, kWide> : &pack_filters_kernel<To, 1>;
    launch("pack_filters", kernel, grid, kThreads, 0, stream, a);
}

} // namespace

void pack_filters_cuda(const FilterBank& bank, const FilterPart& learned, const FilterPart& frozen,
                       int slice_dim, ElementType type, uintptr_t stream) {
    if (std::find(bank.shape.begin(), bank.shape.end(), 0) != bank.shape.end())
        return;
    const PackLaunch a = make_launch(bank, learned, frozen, slice_dim, type);
    for_element(type, [&](auto element) { launch_pack<decltype(element)>(a, stream); });
}

std::string pack_filters_cuda_error() {
    return kernel_error(reinterpret_cast<const void*>(&pack_filters_kernel<float, 1>));
}

} // namespace maskedconv
