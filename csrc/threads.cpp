#include "threads.h"

#include <dlfcn.h>
#include <link.h>

#include <cstring>

namespace maskedconv {
namespace {

struct OpenMP {
    void (*run)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*thread)() = nullptr;
    int (*threads)() = nullptr;
};

int is_openmp(dl_phdr_info* info, size_t, void* found) {
    const char* slash = std::strrchr(info->dlpi_name, '/');
    const char* name = slash ? slash + 1 : info->dlpi_name;
    for (const char* prefix : {"libgomp", "libiomp5", "libomp"})
        if (std::strncmp(name, prefix, std::strlen(prefix)) == 0) {
            *static_cast<void**>(found) = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
            return 1;
        }
    return 0;
}

template <typename F> void look_up(void* library, const char* name, F& function) {
    function = reinterpret_cast<F>(dlsym(library, name));
}

OpenMP find_openmp() {
    void* library = nullptr;
    dl_iterate_phdr(is_openmp, &library);
    OpenMP found;
    if (library == nullptr)
        return found;
    look_up(library, "GOMP_parallel", found.run);
    look_up(library, "omp_get_thread_num", found.thread);
    look_up(library, "omp_get_num_threads", found.threads);
    return found.run && found.thread && found.threads ? found : OpenMP{};
}

struct Call {
    const std::function<void(int, int)>* body;
    const OpenMP* openmp;
};

void call(void* data) {
    const Call& c = *static_cast<Call*>(data);
    (*c.body)(c.openmp->thread(), c.openmp->threads());
}

} // namespace

void parallel(int threads, const std::function<void(int, int)>& body) {
    static const OpenMP openmp = find_openmp();
    if (threads <= 1 || openmp.run == nullptr)
        return body(0, 1);
    Call c{&body, &openmp};
    openmp.run(call, &c, static_cast<unsigned>(threads), 0);
}

} // namespace maskedconv
