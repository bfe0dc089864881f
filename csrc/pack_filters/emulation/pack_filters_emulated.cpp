// pack_filters' CUDA kernel on the CPU, as a C library: built by the tests, never installed.
#include "pack_filters/cuda/pack_filters.cu"

// How many elements a thread packed in the last run.
static int last_width = 0;
extern "C" int emulated_pack_width() { return last_width; }

// Strides, in elements, and the bank's shape: four of [O, I, kH, kW] each.
extern "C" void emulated_pack_filters(unsigned seed, int type, void* out,
                                      const int64_t* out_strides, const int64_t* shape,
                                      const float* learned, const int64_t* learned_strides,
                                      const float* frozen, const int64_t* frozen_strides,
                                      int64_t num_learned, int slice_dim) {
    using namespace maskedconv;
    const auto four = [](const int64_t* from) { return Four{from[0], from[1], from[2], from[3]}; };
    seed_emulation(seed);
    const FilterBank bank{out, four(out_strides), four(shape)};
    const FilterPart first{learned, four(learned_strides), 0, num_learned};
    const FilterPart rest{frozen, four(frozen_strides), num_learned, shape[slice_dim]};
    const ElementType element = static_cast<ElementType>(type);
    pack_filters_cuda(bank, first, rest, slice_dim, element, 0);
    last_width = make_launch(bank, first, rest, slice_dim, element).width;
}
