#include "kernels.h"

namespace maskedconv {

const Kernels& best_kernels() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return kAvx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return kAvx2;
#endif
    return kGeneric;
}

} // namespace maskedconv
