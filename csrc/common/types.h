// The types that describe an operator's tensors.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

namespace maskedconv {

using Two = std::array<int64_t, 2>;
using Four = std::array<int64_t, 4>; // a shape, or strides in elements

enum class ElementType { float32, bfloat16, float16 };

constexpr std::initializer_list<ElementType> kElementTypes = {
    ElementType::float32, ElementType::bfloat16, ElementType::float16};

inline const char* name_of(ElementType type) {
    switch (type) {
    case ElementType::bfloat16:
        return "bfloat16";
    case ElementType::float16:
        return "float16";
    case ElementType::float32:
        break;
    }
    return "float32";
}

} // namespace maskedconv
