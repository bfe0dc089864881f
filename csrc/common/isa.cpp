#include "common/isa.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace maskedconv {
namespace {

constexpr const char* kVariable = "MASKEDCONV_ISA";
const std::vector<Isa> kIsas = {Isa::generic, Isa::avx2, Isa::avx512, Isa::avx512_bf16};

std::string names_of(const std::vector<Isa>& isas) {
    std::string names;
    for (const Isa isa : isas)
        names += (names.empty() ? "" : ", ") + std::string(name_of(isa));
    return names;
}

bool has(const std::vector<Isa>& isas, Isa wanted) {
    return std::find(isas.begin(), isas.end(), wanted) != isas.end();
}

bool processor_has(Isa isa) {
#if defined(__x86_64__)
    if (isa == Isa::avx512_bf16)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512bf16");
    if (isa == Isa::avx512)
        return __builtin_cpu_supports("avx512f");
    if (isa == Isa::avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("f16c");
#endif
    return isa == Isa::generic;
}

// `is`: what the variable is, for the error.
Isa isa_named(const std::string& name, const std::string& is) {
    for (const Isa isa : kIsas)
        if (name == name_of(isa))
            return isa;
    throw std::invalid_argument(is + "; expected one of " + names_of(kIsas));
}

Isa choose_isa() {
    const char* value = std::getenv(kVariable);
    const std::string name = value == nullptr ? "" : value;
    const auto available = available_isas();
    if (name.empty())
        return available.back();
    const std::string is = std::string(kVariable) + " is '" + name + "'";
    const Isa wanted = isa_named(name, is);
    if (!has(built_isas(), wanted))
        throw std::runtime_error(is + ", which maskedconv._C is built without; it has " +
                                 names_of(built_isas()));
    if (!has(available, wanted))
        throw std::runtime_error(is + ", which this processor does not have; it has " +
                                 names_of(available));
    return wanted;
}

} // namespace

const char* name_of(Isa isa) {
    switch (isa) {
    case Isa::avx512_bf16:
        return "avx512_bf16";
    case Isa::avx512:
        return "avx512";
    case Isa::avx2:
        return "avx2";
    case Isa::generic:
        break;
    }
    return "generic";
}

std::vector<Isa> built_isas() {
#if defined(__x86_64__)
    return kIsas;
#else
    return {Isa::generic};
#endif
}

std::vector<Isa> available_isas() {
    std::vector<Isa> available;
    for (const Isa isa : built_isas())
        if (processor_has(isa))
            available.push_back(isa);
    return available;
}

Isa chosen_isa() {
    static const Isa chosen = choose_isa();
    return chosen;
}

} // namespace maskedconv
