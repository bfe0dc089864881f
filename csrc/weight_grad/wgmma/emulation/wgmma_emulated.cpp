// weight_grad by wgmma on the CPU, and its arithmetic, as a C library: built by the tests, never
// installed.
#include "common/emulation/attempt.h"
#include "weight_grad/emulation/problem.h"
#include "weight_grad/wgmma/cuda/weight_grad_wgmma_sm90a.cu"

namespace {

using namespace maskedconv;

// Launches with counters and sums that hold arbitrary values.
void run(const WeightGrad& p, ElementType type, const CudaLimits& limits) {
    const WgmmaWorkspace workspace = weight_grad_wgmma_workspace(p, limits);
    std::vector<float> floats(workspace.floats, NAN);
    std::vector<unsigned> counters(workspace.counters, 7);
    weight_grad_wgmma(p, type, limits, floats.data(), counters.data(), 0);
}

} // namespace

extern "C" {

// Elements of the last run.
int64_t emulated_computed_again() { return computed_again; }

// Rows and images of a tile, tiles, 8s of filters and 64s of channels of a block, filter groups,
// channel blocks, blocks of a cluster, clusters, stages, bytes of a stage and of shared memory,
// warpgroups of a block, whether they are swapped.
void emulated_plan(int, const int64_t* sizes, int multiprocessors, int shared_bytes,
                   int64_t* plan) {
    const wgmma::Plan made = wgmma::make_plan(problem_of(sizes), {multiprocessors, shared_bytes});
    const int64_t values[] = {made.rows,           made.images,
                              made.tiles,          made.filter_blocks,
                              made.groups,         made.filter_groups,
                              made.channel_blocks, made.cluster,
                              made.clusters,       made.stages,
                              made.stage_bytes,    made.shared_bytes,
                              made.warpgroups,     wgmma::is_swapped(made.filter_blocks)};
    std::copy(std::begin(values), std::end(values), plan);
}

const char* emulated_sizes_refusal(int type, const int64_t* sizes, int multiprocessors,
                                   int shared_bytes) {
    return weight_grad_wgmma_sizes_refusal(problem_of(sizes), static_cast<ElementType>(type),
                                           {multiprocessors, shared_bytes});
}

// 0: done; 1: see emulated_error.
int emulated_weight_grad(unsigned seed, int type, const void* x, const int64_t* x_strides,
                         const void* grad, const int64_t* grad_strides, const int64_t* sizes,
                         const float* scale, const float* shift, int multiprocessors,
                         int shared_bytes, float* out) {
    WeightGrad p = problem_of(sizes, x, x_strides, grad, grad_strides);
    p.scale = scale, p.shift = shift, p.out = out;
    return attempt(seed, [&] {
        computed_again = 0;
        run(p, static_cast<ElementType>(type), {multiprocessors, shared_bytes});
    });
}

// `images`: channels, columns, rows, images, and the strides of the last three; `box`: the same
// sizes. `out`: the driver's arguments, sizes, steps and box. Returns the broken rule, if any.
const char* emulated_tensor_map(const void* data, const int64_t* images, const int64_t* box,
                                int swizzled, int64_t* out) {
    const Images from{data,      images[0], images[1], images[2],
                      images[3], images[4], images[5], images[6]};
    const Box part{box[0], box[1], box[2], box[3]};
    const Swizzle swizzle = swizzled ? Swizzle::bytes128 : Swizzle::none;
    const TensorMapArguments a = tensor_map_arguments(from, part, swizzle);
    out = std::copy(std::begin(a.sizes), std::end(a.sizes), out);
    out = std::copy(std::begin(a.steps), std::end(a.steps), out);
    std::copy(std::begin(a.box), std::end(a.box), out);
    return tensor_map_refusal(from, part, swizzle);
}

uint64_t emulated_matrix_descriptor(uint32_t start, uint32_t k_step, uint32_t mn_step) {
    return matrix_descriptor({start, k_step, mn_step});
}

uint32_t emulated_element_address(uint32_t start, uint32_t k_step, uint32_t mn_step, int k,
                                  int mn) {
    return element_address({start, k_step, mn_step}, k, mn);
}

uint64_t emulated_swizzled_descriptor(uint32_t start, uint32_t k_step, uint32_t mn_step) {
    return swizzled_descriptor({start, k_step, mn_step});
}

uint32_t emulated_swizzled_address(uint32_t start, uint32_t k_step, uint32_t mn_step, int k,
                                   int mn) {
    return swizzled_address({start, k_step, mn_step}, k, mn);
}

uint32_t emulated_swizzle(uint32_t address) { return swizzle128(address); }

uint32_t emulated_x_offset(int step, int warp, int lane) {
    return wgmma::x_offset(step, warp, lane);
}

// Image, row and column of the tile; then of the halo's first pixel, row and column.
void emulated_tile_place(const int64_t* sizes, int tile, int64_t* place) {
    const WeightGrad p = problem_of(sizes);
    const wgmma::TilePlace found = wgmma::tile_place(wgmma::make_plan(p, {1, 1 << 20}), tile);
    const wgmma::HaloOrigin halo = wgmma::halo_origin(p);
    const int64_t values[] = {found.image, found.row, found.column, found.row + halo.row,
                              found.column + halo.column};
    std::copy(std::begin(values), std::end(values), place);
}

// Offset of the gradient that pixel k of a step meets in column `column` of a product, in bytes
// from the halo.
uint32_t emulated_halo_address(const int64_t* sizes, int step, int up, int k, int column) {
    const WeightGrad p = problem_of(sizes);
    const wgmma::Plan plan = wgmma::make_plan(p, {1, 1 << 20});
    const int start = wgmma::halo_offset(plan, step, up, p.dilation.rows);
    return element_address(wgmma::halo_operand(plan, start, p.dilation.columns), k, column);
}

// Swapped: offset of the gradient that pixel k of a step meets for a filter and the tap `up` and
// `left` before the last; then the offset of a channel of that pixel in the tile of x.
uint32_t emulated_filters_address(const int64_t* sizes, int step, int up, int left, int k,
                                  int filter) {
    const WeightGrad p = problem_of(sizes);
    const wgmma::Plan plan = wgmma::make_plan(p, {1, 1 << 20});
    const int start = wgmma::halo_offset(plan, step, up, p.dilation.rows) +
                      wgmma::tap_offset(left, p.dilation.columns);
    return element_address(wgmma::filters_operand(plan, start), k, filter);
}

uint32_t emulated_channels_address(int step, int k, int channel) {
    return swizzled_address(wgmma::channels_operand(0, step), k, channel);
}

// Filter, row, column and channel of sum `i`, and its place in shared memory.
void emulated_sum_place(int side, int filter_blocks, int i, int64_t* out) {
    using namespace wgmma;
    const auto places = [](int side, int filter_blocks) {
        if (side == 1)
            return filter_blocks == 8   ? &sum_place<1, 8>
                   : filter_blocks == 4 ? &sum_place<1, 4>
                                        : &sum_place<1, 1>;
        if (side == 5)
            return &sum_place<5, 1>;
        return filter_blocks == 8   ? &sum_place<3, 8>
               : filter_blocks == 2 ? &sum_place<3, 2>
                                    : &sum_place<3, 1>;
    };
    const SumPlace place = places(side, filter_blocks)(i);
    const int64_t values[] = {place.filter, place.row, place.column, place.channel, sum_offset(i)};
    std::copy(std::begin(values), std::end(values), out);
}
}
