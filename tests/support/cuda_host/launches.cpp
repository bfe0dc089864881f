// The host's side of launches (csrc/common/cuda) against the headers beside this file.
#include "common/cuda/encode_tensor_map.h"

#include <exception>
#include <string>
#include <thread>

using namespace maskedconv;

namespace {

struct Nothing {};
void kernel(Nothing) {}

std::string error;

template <typename Run> const char* error_of(Run run) {
    error.clear();
    try {
        run();
    } catch (const std::exception& thrown) {
        error = thrown.what();
    }
    return error.c_str();
}

void launch_one(bool clusters, int bytes) {
    if (clusters)
        launch_clusters("clusters", &kernel, {dim3(2), 2, 32, bytes, 0}, Nothing());
    else
        launch("blocks", &kernel, dim3(2), 32, bytes, 0, Nothing());
}

} // namespace

extern "C" {

// Launches with `bytes` of shared memory. After its preparations and before the launch itself,
// another thread launches the same kernel with `others`.
const char* launch_between(bool clusters, int bytes, int others) {
    host::allowed.clear();
    host::another_thread = [=] { launch_one(clusters, others); };
    return error_of([=] { launch_one(clusters, bytes); });
}

// The error of a kernel that the driver refuses, or takes.
const char* error_of_kernel(bool refused) {
    host::refuses_kernels = refused;
    error = kernel_error(reinterpret_cast<const void*>(&kernel));
    return error.c_str();
}

// Encodes a map as the first work of a thread.
const char* encode_first() {
    std::thread([] {
        error_of([] { encode_tensor_map(tensor_map_arguments({}, {}, Swizzle::none)); });
    }).join();
    return error.c_str();
}
}
