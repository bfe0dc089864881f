// Products of warpgroups, as the PTX ISA documents them: each warp computes its own 16 of the 64
// rows.
#pragma once

#include "emulation.h"

namespace maskedconv {
namespace emulation {

constexpr uint32_t kSharedStart = 1024; // shared memory does not begin at address 0
constexpr int kRows = 16, kDepth = 16;  // of a warp's product

using ToFloat = float (*)(uint16_t);

inline float from_bfloat16(uint16_t bits) {
    return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}
inline float from_float16(uint16_t bits) {
    _Float16 value;
    std::memcpy(&value, &bits, 2);
    return static_cast<float>(value);
}

// NaN if the write of a thread is not fenced: products use another proxy.
inline float shared_element(uint32_t address, ToFloat to_float) {
    const unsigned char* from = block->shared() + (address - kSharedStart);
    block->check_shared(from, kMapElement);
    if (block->unfenced.has(from))
        return std::numeric_limits<float>::quiet_NaN();
    uint16_t bits;
    std::memcpy(&bits, from, kMapElement);
    return to_float(bits);
}

// An operand in shared memory, MN-major.
class SharedOperand {
  public:
    explicit SharedOperand(uint64_t descriptor) : swizzled_(descriptor >> 62 == 1) {
        const auto offset = [=](int bit) {
            return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4;
        };
        if (descriptor >> 62 > 1 || descriptor >> 46 & 0xffff)
            throw std::runtime_error("emulation: a descriptor of another form");
        place_ = swizzled_ ? MatrixPlace{offset(0), offset(32), offset(16)}
                           : MatrixPlace{offset(0), offset(16), offset(32)};
        if (swizzled_ && place_.start % 1024)
            throw std::runtime_error("emulation: a swizzled operand begins within its period");
    }

    float element(int k, int mn, ToFloat to_float) const {
        const uint32_t address =
            swizzled_ ? swizzled_address(place_, k, mn) : element_address(place_, k, mn);
        return shared_element(address, to_float);
    }

  private:
    MatrixPlace place_;
    bool swizzled_;
};

// `registers`: the lane's fragment of a, or null if the descriptor `a` locates it.
struct ProductOperands {
    const uint32_t* registers;
    uint64_t a, b;
};

// [row][k] of a warp.
inline std::vector<float> rows_in_registers(const std::vector<ProductOperands>& lanes,
                                            ToFloat to_float) {
    std::vector<float> a(kRows * kDepth);
    for (int row = 0; row < kRows; ++row)
        for (int k = 0; k < kDepth; ++k) {
            const uint32_t bits =
                lanes[row % 8 * 4 + k / 2 % 4].registers[row / 8 + k / 8 * 2] >> (k % 2 * 16);
            a[row * kDepth + k] = to_float(static_cast<uint16_t>(bits));
        }
    return a;
}

inline std::vector<float> rows_in_shared(uint64_t descriptor, int warp, ToFloat to_float) {
    const SharedOperand operand(descriptor);
    std::vector<float> a(kRows * kDepth);
    for (int row = 0; row < kRows; ++row)
        for (int k = 0; k < kDepth; ++k)
            a[row * kDepth + k] = operand.element(k, warp * kRows + row, to_float);
    return a;
}

// One warp's 16 rows of a product.
inline void compute_rows(const std::vector<SumRegisters>& to, const std::vector<float>& a,
                         const SharedOperand& operand, ToFloat to_float,
                         const std::function<float*(float*)>& sums) {
    for (int column = 0; column < to[0].count * 2; ++column) {
        float b[kDepth];
        for (int k = 0; k < kDepth; ++k)
            b[k] = operand.element(k, column, to_float);
        for (int row = 0; row < kRows; ++row) {
            const int lane = row % 8 * 4 + column % 8 / 2;
            float& sum = sums(to[lane].first)[column / 8 * 4 + row / 8 * 2 + column % 2];
            for (int k = 0; k < kDepth; ++k)
                sum += a[row * kDepth + k] * b[k];
        }
    }
}

template <int kCount>
void product(const char* name, float (&sum)[kCount], const ProductOperands& mine,
             ToFloat to_float) {
    block->warp_instruction(name, &mine, sum, [=](const WarpExchange& exchange) {
        std::vector<SumRegisters> to;
        std::vector<ProductOperands> lanes;
        for (int lane = 0; lane < 32; ++lane) {
            to.push_back({static_cast<float*>(exchange.out[lane]), kCount});
            lanes.push_back(*static_cast<const ProductOperands*>(exchange.in[lane]));
            if (lanes[lane].a != lanes[0].a || lanes[lane].b != lanes[0].b)
                throw std::runtime_error("emulation: the lanes' descriptors differ");
        }
        const int warp = static_cast<int>(block->current_warp());
        block->products[warp].add(
            to,
            [=](const std::function<float*(float*)>& sums) {
                const std::vector<float> a = lanes[0].registers
                                                 ? rows_in_registers(lanes, to_float)
                                                 : rows_in_shared(lanes[0].a, warp % 4, to_float);
                compute_rows(to, a, SharedOperand(lanes[0].b), to_float, sums);
            },
            block->draw());
    });
}

} // namespace emulation
} // namespace maskedconv
