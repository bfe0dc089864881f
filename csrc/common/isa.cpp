#include "kernels.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace maskedconv {
namespace {

constexpr const char* kVariable = "MASKEDCONV_ISA";

std::string names_of(const std::vector<const Kernels*>& sets) {
    std::string names;
    for (const Kernels* set : sets)
        names += (names.empty() ? "" : ", ") + std::string(set->isa);
    return names;
}

// The one of `sets` with this name, or null.
const Kernels* find(const std::vector<const Kernels*>& sets, const std::string& name) {
    for (const Kernels* set : sets)
        if (name == set->isa)
            return set;
    return nullptr;
}

bool processor_has(const Kernels& kernels) {
#if defined(__x86_64__)
    if (&kernels == &kAvx512)
        return __builtin_cpu_supports("avx512f");
    if (&kernels == &kAvx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return &kernels == &kGeneric;
}

const Kernels& choose_kernels() {
    const char* value = std::getenv(kVariable);
    const std::string wanted = value == nullptr ? "" : value;
    const auto available = available_kernels();
    if (wanted.empty())
        return *available.back();
    const std::string is = std::string(kVariable) + " is '" + wanted + "'";
    if (wanted != "generic" && wanted != "avx2" && wanted != "avx512")
        throw std::invalid_argument(is + "; expected generic, avx2 or avx512");
    if (find(built_kernels(), wanted) == nullptr)
        throw std::runtime_error(is + ", which maskedconv._C is built without; it has " +
                                 names_of(built_kernels()));
    if (const Kernels* found = find(available, wanted))
        return *found;
    throw std::runtime_error(is + ", which this processor does not have; it has " +
                             names_of(available));
}

} // namespace

std::vector<const Kernels*> built_kernels() {
#if defined(__x86_64__)
    return {&kGeneric, &kAvx2, &kAvx512};
#else
    return {&kGeneric};
#endif
}

std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> available;
    for (const Kernels* set : built_kernels())
        if (processor_has(*set))
            available.push_back(set);
    return available;
}

const Kernels& chosen_kernels() {
    static const Kernels& chosen = choose_kernels();
    return chosen;
}

} // namespace maskedconv
