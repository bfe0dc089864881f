#include "common/isa.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace maskedconv {
namespace {

constexpr const char* kVariable = "MASKEDCONV_ISA";
const std::vector<Isa> kIsas = {Isa::generic,     Isa::avx2, Isa::avx512,
                                Isa::avx512_bf16, Isa::amx,  Isa::amx_emulated};
constexpr Isa kConfirmed = Isa::avx512_bf16; // and all before it

std::string names_of(const std::vector<Isa>& isas) {
    std::string names;
    for (const Isa isa : isas)
        names += (names.empty() ? "" : ", ") + std::string(name_of(isa));
    return names;
}

bool has(const std::vector<Isa>& isas, Isa wanted) {
    return std::find(isas.begin(), isas.end(), wanted) != isas.end();
}

#if defined(__x86_64__)
// CPUID leaf 7: AMX-BF16 and AMX-TILE.
bool processor_has_amx() {
    constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kBf16) != 0 && (d & kTile) != 0;
}
#endif

// Asks the system for the registers of tiles, once for the process; empty, or why not.
std::string why_no_tiles() {
#if defined(__x86_64__) && defined(__linux__)
    constexpr long kRequestPermission = 0x1023, kTileData = 18; // ARCH_REQ_XCOMP_PERM of Linux 5.16
    if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0)
        return "";
    return std::strerror(errno);
#else
    return "only Linux is asked for it";
#endif
}

bool processor_has(Isa isa) {
#if defined(__x86_64__)
    if (isa == Isa::amx)
        return processor_has(Isa::avx512_bf16) && processor_has_amx();
    if (isa == Isa::avx512_bf16 || isa == Isa::amx_emulated)
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

// `is`: the start of the error, with the variable and its value.
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
        return *std::find_if(available.rbegin(), available.rend(),
                             [](Isa isa) { return isa <= kConfirmed; });
    const std::string is = std::string(kVariable) + " is '" + name + "'";
    const Isa wanted = isa_named(name, is);
    if (!has(built_isas(), wanted))
        throw std::runtime_error(is + ", which maskedconv._C is built without; it has " +
                                 names_of(built_isas()));
    if (!has(available, wanted))
        throw std::runtime_error(is + ", which this processor does not have; it has " +
                                 names_of(available));
    if (const std::string why = wanted == Isa::amx ? why_no_tiles() : ""; !why.empty())
        throw std::runtime_error(is + ", whose tiles the system does not permit: " + why);
    return wanted;
}

} // namespace

const char* name_of(Isa isa) {
    switch (isa) {
    case Isa::amx:
        return "amx";
    case Isa::amx_emulated:
        return "amx_emulated";
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
