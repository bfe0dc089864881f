// Checks of the module's arguments before a kernel runs: std::invalid_argument names the operator
// and the argument. The size of the memory is not known here: a tensor's shape and strides are
// assumed to fit it, as PyTorch ensures.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "common/types.h"

namespace maskedconv {

class Checks {
  public:
    explicit Checks(const char* operation) : operation_(operation) {}

    [[noreturn]] void refuse(const std::string& what) const {
        throw std::invalid_argument(std::string(operation_) + ": " + what);
    }

    // For sizes and for steps between pixels: products of two of them fit 64 bits.
    void between(const char* name, int64_t value, int64_t least, int64_t most = kMost) const {
        if (value < least || value > most)
            refuse(std::string(name) + " is " + std::to_string(value) + "; expected " +
                   std::to_string(least) + " to " + std::to_string(most));
    }

    void equal(const char* name, int64_t value, int64_t expected) const {
        if (value != expected)
            refuse(std::string(name) + " is " + std::to_string(value) + "; expected " +
                   std::to_string(expected));
    }

    void memory(const char* name, uintptr_t data, int64_t elements) const {
        if (data == 0 && elements > 0)
            refuse(std::string(name) + " is a null pointer; expected " + std::to_string(elements) +
                   " elements");
    }

    // Returns the number of elements.
    int64_t tensor(const char* name, uintptr_t data, const Four& shape, const Four& strides) const {
        int64_t elements = 1, span = 1;
        for (const int64_t size : shape)
            elements = product(name, elements, at_least_zero(name, "size", size));
        for (size_t dim = 0; elements > 0 && dim < shape.size(); ++dim) {
            const int64_t step = at_least_zero(name, "stride", strides[dim]);
            if (__builtin_add_overflow(span, product(name, shape[dim] - 1, step), &span))
                refuse(std::string(name) + " is larger than memory");
        }
        memory(name, data, elements);
        return elements;
    }

    // The one of `taken` that has this name.
    ElementType type(const std::string& name, std::initializer_list<ElementType> taken) const {
        std::string expected;
        for (const ElementType type : taken) {
            if (name == name_of(type))
                return type;
            const bool last = type == taken.end()[-1];
            expected += (expected.empty() ? "" : last ? " or " : ", ") + std::string(name_of(type));
        }
        refuse("type is " + name + "; expected " + expected);
    }

  private:
    static constexpr int64_t kMost = INT32_MAX;

    int64_t at_least_zero(const char* name, const char* what, int64_t value) const {
        if (value < 0)
            refuse(std::string(name) + " has a " + what + " of " + std::to_string(value) +
                   "; expected 0 or more");
        return value;
    }

    int64_t product(const char* name, int64_t a, int64_t b) const {
        int64_t result;
        if (__builtin_mul_overflow(a, b, &result))
            refuse(std::string(name) + " is larger than memory");
        return result;
    }

    const char* operation_;
};

} // namespace maskedconv
