// The instructions of tensor cores on the CPU: layouts of fragments as in the PTX manual, and how
// values are rounded on the way there.
#pragma once

#include "block.h"

namespace maskedconv {

// Lane l gets elements [2 (l % 4)][l / 4] and [2 (l % 4) + 1][l / 4] of each 8x8 matrix.
template <size_t kMatrices>
void load_matrices_transposed(uint32_t (&to)[kMatrices], const void* row) {
    emulation::block->warp_instruction(
        "ldmatrix.trans", row, to, [](const emulation::WarpExchange& exchange) {
            emulation::block->products[emulation::block->current_warp()].registers_written();
            for (int lane = 0; lane < 32; ++lane)
                for (size_t matrix = 0; matrix < kMatrices; ++matrix) {
                    uint16_t two[2];
                    for (int i = 0; i < 2; ++i) {
                        const void* from = exchange.in[matrix * 8 + lane % 4 * 2 + i];
                        emulation::block->check_shared(from, 16);
                        two[i] = static_cast<const uint16_t*>(from)[lane / 4];
                    }
                    static_cast<uint32_t*>(exchange.out[lane])[matrix] =
                        two[0] | static_cast<uint32_t>(two[1]) << 16;
                }
        });
}

namespace emulation {

struct MmaOperands {
    const uint32_t* a;
    const uint32_t* b;
};

// One mma.m16n8kK: `element(bits, i)` is the i-th of kPerRegister elements of a register.
template <int kK, typename Element>
void mma(const char* name, float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
         Element element) {
    const MmaOperands operands{a, b};
    block->warp_instruction(name, &operands, sum, [=](const WarpExchange& exchange) {
        constexpr int kPerRegister = kK / 8;
        const auto operand = [&](int lane) {
            return static_cast<const MmaOperands*>(exchange.in[lane]);
        };
        // k lies in register half k / (kK / 2), lane k / kPerRegister % 4.
        const auto a_at = [&](int row, int k) {
            const int lane = row % 8 * 4 + k / kPerRegister % 4;
            return element(operand(lane)->a[row / 8 + k / (kK / 2) * 2], k % kPerRegister);
        };
        const auto b_at = [&](int k, int column) {
            const int lane = column * 4 + k / kPerRegister % 4;
            return element(operand(lane)->b[k / (kK / 2)], k % kPerRegister);
        };
        float a_values[16][kK], b_values[kK][8];
        for (int k = 0; k < kK; ++k) {
            for (int row = 0; row < 16; ++row)
                a_values[row][k] = a_at(row, k);
            for (int column = 0; column < 8; ++column)
                b_values[k][column] = b_at(k, column);
        }
        for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < 4; ++i) {
                float& value = static_cast<float*>(exchange.out[lane])[i];
                const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
                for (int k = 0; k < kK; ++k)
                    value += a_values[row][k] * b_values[k][column];
            }
    });
}

} // namespace emulation

inline void mma_bfloat16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulation::mma<16>("mma.bf16", sum, a, b, [](uint32_t bits, int i) {
        return __uint_as_float(i ? bits & 0xffff0000u : bits << 16);
    });
}

inline void mma_float16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulation::mma<16>("mma.f16", sum, a, b, [](uint32_t bits, int i) {
        const auto half = static_cast<uint16_t>(i ? bits >> 16 : bits);
        _Float16 value;
        std::memcpy(&value, &half, 2);
        return static_cast<float>(value);
    });
}

inline void mma_tf32(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulation::mma<8>("mma.tf32", sum, a, b, [](uint32_t bits, int) {
        return __uint_as_float(bits & 0xffffe000u); // hardware reads 19 bits
    });
}

// Rounds to nearest at 10 bits of mantissa, ties away from zero; NaN becomes the hardware's NaN.
inline uint32_t round_to_tf32(float value) {
    const uint32_t bits = __float_as_uint(value);
    if (std::isnan(value))
        return 0x7fffffffu;
    return std::isfinite(value) ? (bits + 0x1000u) & 0xffffe000u : bits;
}

// NaN becomes the hardware's NaN.
inline uint32_t pack_relu_bfloat16(float low, float high) {
    const auto half = [](float value) -> uint32_t {
        const uint32_t bits = __float_as_uint(value);
        if (std::isnan(value))
            return 0x7fff;
        return value > 0.0f ? (bits + 0x7fffu + (bits >> 16 & 1)) >> 16 : 0;
    };
    return half(low) | half(high) << 16;
}

inline uint32_t pack_relu_float16(float low, float high) {
    const auto half = [](float value) -> uint32_t {
        const auto rounded = static_cast<_Float16>(value);
        uint16_t bits;
        std::memcpy(&bits, &rounded, 2);
        if (std::isnan(value))
            return 0x7fff;
        return value > 0.0f ? bits : 0;
    };
    return half(low) | half(high) << 16;
}

} // namespace maskedconv
