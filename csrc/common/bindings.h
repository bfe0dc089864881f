// For the functions that Python calls: pointers, and types by name.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "common.h"
#include "common/halves.h"

namespace maskedconv {

// For functions that launch: a launch may wait for other threads, which may need the GIL.
using WithoutGil = pybind11::call_guard<pybind11::gil_scoped_release>;

template <typename T = float> const T* read(uintptr_t pointer) {
    return reinterpret_cast<const T*>(pointer);
}
template <typename T = float> T* written(uintptr_t pointer) {
    return reinterpret_cast<T*>(pointer);
}

// Calls body(T()) for the type of that name.
template <typename F> void for_type(const Checks& checks, const std::string& type, const F& body) {
    switch (checks.type(type, kElementTypes)) {
    case ElementType::bfloat16:
        return body(Bfloat16());
    case ElementType::float16:
        return body(Float16());
    case ElementType::float32:
        return body(float());
    }
}

} // namespace maskedconv
