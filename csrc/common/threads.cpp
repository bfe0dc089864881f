#include "common/threads.h"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <exception>
#include <string>

namespace maskedconv {
namespace {

struct OpenMP {
    void (*run)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*thread)() = nullptr;
    int (*threads)() = nullptr;
};

struct Library {
    std::string path;
    bool of_torch = false;
};

// Other packages bring OpenMP runtimes, too; PyTorch's own, if it has one, lies in its folder.
int remember_openmp(dl_phdr_info* info, size_t, void* data) {
    const std::string path = info->dlpi_name;
    const std::string name = path.substr(path.rfind('/') + 1);
    Library& found = *static_cast<Library*>(data);
    for (const char* prefix : {"libgomp", "libiomp5", "libomp"}) {
        const bool of_torch = path.find("/torch/") != std::string::npos;
        if (name.rfind(prefix, 0) == 0 && (found.path.empty() || (of_torch && !found.of_torch)))
            found = {path, of_torch};
    }
    return 0;
}

template <typename F> void look_up(void* library, const char* name, F& function) {
    function = reinterpret_cast<F>(dlsym(library, name));
}

OpenMP find_openmp() {
    Library openmp;
    dl_iterate_phdr(remember_openmp, &openmp);
    void* library = dlopen(openmp.path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    OpenMP found;
    if (openmp.path.empty() || library == nullptr)
        return found;
    look_up(library, "GOMP_parallel", found.run);
    look_up(library, "omp_get_thread_num", found.thread);
    look_up(library, "omp_get_num_threads", found.threads);
    return found.run && found.thread && found.threads ? found : OpenMP{};
}

struct Call {
    const std::function<void(int, int)>* body;
    const OpenMP* openmp;
    std::atomic_flag failed = ATOMIC_FLAG_INIT;
    std::exception_ptr error = nullptr; // of the first thread that failed
};

// The runtime calls it on each thread. An exception that left it would end the process.
void call(void* data) noexcept {
    Call& c = *static_cast<Call*>(data);
    try {
        (*c.body)(c.openmp->thread(), c.openmp->threads());
    } catch (...) {
        if (!c.failed.test_and_set())
            c.error = std::current_exception();
    }
}

} // namespace

void parallel(int threads, const std::function<void(int, int)>& body) {
    static const OpenMP openmp = find_openmp();
    if (threads <= 1 || openmp.run == nullptr)
        return body(0, 1);
    Call c{&body, &openmp};
    openmp.run(call, &c, static_cast<unsigned>(threads), 0);
    if (c.error)
        std::rethrow_exception(c.error);
}

} // namespace maskedconv
