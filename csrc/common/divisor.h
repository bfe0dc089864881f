// Division by a number that the host knows and a kernel does not: a product and two shifts.
#pragma once

#include <cstdint>

namespace maskedconv {

// For dividends below 2^31. multiplier = 2^(31 + shift) / value, rounded up; 2^shift is the first
// power of two that is not below value. The multiplier exceeds the exact quotient by less than
// 2^-(31 + shift) * value <= 2^-31 for each unit of the dividend, which is too little to reach the
// next integer.
class Divisor {
  public:
    constexpr Divisor() = default;
    constexpr explicit Divisor(int64_t value) : value_(static_cast<uint32_t>(value)) {
        while ((int64_t{1} << shift_) < value)
            ++shift_;
        const uint64_t power = uint64_t{1} << (31 + shift_);
        multiplier_ = static_cast<uint32_t>((power + value_ - 1) / value_);
    }

    constexpr int value() const { return static_cast<int>(value_); }
    constexpr int quotient(int dividend) const {
        const uint64_t product =
            static_cast<uint64_t>(static_cast<uint32_t>(dividend)) * multiplier_;
        return static_cast<int>(static_cast<uint32_t>(product >> 31) >> shift_);
    }
    constexpr int remainder(int dividend) const { return dividend - quotient(dividend) * value(); }

  private:
    uint32_t value_ = 1, multiplier_ = 1u << 31, shift_ = 0;
};

} // namespace maskedconv
