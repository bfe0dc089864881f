// The roles of the usual weight gradient are reversed: x, the large operand, is read once, and
// taps, strides and zero padding act on the few channels of grad_output that belong to learned
// filters:
//   dW[f, r, s, c] = sum over input pixels of x[h, w, c] * grad[f, (h + p - r d) / stride, ...].
// So the prologue on x needs no padding mask, either.
#include "weight_grad.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "threads.h"
#include "weight_grad_kernel.h"

namespace maskedconv {
namespace {

// Of x that a block of rows brings into the second cache: a larger block loads and stores its sums
// less often than one that fits the first.
constexpr int64_t kCacheFloats = 32768;

TileKernel best_kernel() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return weight_grad_tile_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return weight_grad_tile_avx2;
#endif
    return weight_grad_tile_generic;
}

float as_float(float value) { return value; }
float as_float(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// What is the same for every image of a problem.
struct Plan {
    const WeightGrad& p;
    int64_t channels;     // padded to whole vectors
    bool copies_x;        // padding, converting or the prologue: x goes through a buffer
    bool joint_columns;   // taps of one kernel row are neighbours in the padded gradient
    int64_t left, padded; // margin and width of the padded gradient's rows, in pixels
    int64_t block_rows;   // of x
    TileKernel kernel;

    explicit Plan(const WeightGrad& problem) : p(problem) {
        channels = ceil_div(p.channels, kLane) * kLane;
        copies_x = channels != p.channels || p.type != Element::float32 || p.scale != nullptr;
        joint_columns = p.stride.columns == 1 && p.dilation.columns == 1;
        left = joint_columns ? std::max<int64_t>(0, p.kernel.columns - 1 - p.padding.columns) : 0;
        const int64_t last = joint_columns ? p.input.columns - 1 + p.padding.columns : 0;
        padded = left + std::max(p.output.columns, last + 1);
        block_rows = std::max<int64_t>(1, kCacheFloats / (channels * p.input.columns));
        kernel = best_kernel();
    }

    int64_t sums() const { return p.filters * p.kernel.rows * p.kernel.columns * channels; }
};

// One thread's buffers and sums.
class Worker {
  public:
    explicit Worker(const Plan& plan)
        : plan_(plan), p_(plan.p), sums(static_cast<size_t>(plan.sums())),
          grad_(static_cast<size_t>(p_.output.rows * plan.padded * p_.filters)),
          x_(plan.copies_x ? plan.block_rows * p_.input.columns * plan.channels : 0) {}

    template <typename T> void add_image(int64_t image) {
        pack_grad(static_cast<const T*>(p_.grad_output) + image * p_.grad_image);
        const T* x = static_cast<const T*>(p_.x) + image * p_.x_image;
        for (int64_t row = 0; row < p_.input.rows; row += plan_.block_rows)
            add_rows(x, row, std::min(row + plan_.block_rows, p_.input.rows));
    }

  private:
    const Plan& plan_;
    const WeightGrad& p_;

  public:
    std::vector<float> sums; // [kernel row][column of it][channels]

  private:
    std::vector<float> grad_; // [output row][padded pixel][filter]
    std::vector<float> x_;    // [row of the block][pixel][channels]

    template <typename T> void pack_grad(const T* grad) {
        for (int64_t row = 0; row < p_.output.rows; ++row) {
            float* to = grad_.data() + (row * plan_.padded + plan_.left) * p_.filters;
            const T* from = grad + row * p_.grad_row;
            for (int64_t pixel = 0; pixel < p_.output.columns; ++pixel)
                for (int64_t filter = 0; filter < p_.filters; ++filter)
                    *to++ = as_float(from[pixel * p_.grad_pixel + filter * p_.grad_channel]);
        }
    }

    template <typename T> void copy_x(const T* x, int64_t row, int64_t end) {
        float* to = x_.data();
        for (; row < end; ++row)
            for (int64_t pixel = 0; pixel < p_.input.columns; ++pixel, to += plan_.channels) {
                const T* from = x + row * p_.x_row + pixel * p_.x_pixel;
                for (int64_t c = 0; c < p_.channels; ++c)
                    to[c] = as_float(from[c]);
                if (p_.scale != nullptr)
                    for (int64_t c = 0; c < p_.channels; ++c)
                        to[c] = std::max(0.0f, to[c] * p_.scale[c] + p_.shift[c]);
            }
    }

    template <typename T> void add_rows(const T* x, int64_t row, int64_t end) {
        TileInput tile{};
        tile.channels = plan_.channels;
        if (plan_.copies_x) {
            copy_x(x, row, end);
            tile.x_row = p_.input.columns * plan_.channels;
            tile.x_pixel = plan_.channels;
            tile.x = x_.data();
        } else {
            tile.x_row = p_.x_row;
            tile.x_pixel = p_.x_pixel;
            tile.x = reinterpret_cast<const float*>(x) + row * p_.x_row;
        }
        for (int64_t r = 0; r < p_.kernel.rows; ++r)
            add_tap_row(tile, r, row, end);
    }

    // Output rows o whose input row o * stride + r * dilation - padding is in [row, end).
    void add_tap_row(TileInput tile, int64_t r, int64_t row, int64_t end) {
        const int64_t offset = r * p_.dilation.rows - p_.padding.rows;
        const int64_t first = std::max<int64_t>(0, ceil_div(row - offset, p_.stride.rows));
        const int64_t last =
            std::min(p_.output.rows - 1, floor_div(end - 1 - offset, p_.stride.rows));
        if (first > last)
            return;
        tile.rows = last - first + 1;
        tile.x += (first * p_.stride.rows + offset - row) * tile.x_row;
        tile.x_row *= p_.stride.rows;
        tile.grad = grad_.data() + first * plan_.padded * p_.filters;
        tile.grad_row = plan_.padded * p_.filters;
        tile.grad_pixel = p_.filters;
        tile.sum = sums.data() + r * p_.kernel.columns * p_.filters * plan_.channels;
        if (plan_.joint_columns)
            return add_joint_columns(tile);
        for (int64_t s = 0; s < p_.kernel.columns; ++s)
            add_one_tap(tile, s);
    }

    // Every input pixel w meets, for the taps from the last to the first, the neighbouring output
    // pixels w + p - s: their filters are the columns.
    void add_joint_columns(TileInput tile) {
        tile.grad += (plan_.left + p_.padding.columns - (p_.kernel.columns - 1)) * p_.filters;
        tile.pixels = p_.input.columns;
        tile.columns = p_.kernel.columns * p_.filters;
        plan_.kernel(tile);
    }

    void add_one_tap(TileInput tile, int64_t s) {
        const int64_t offset = s * p_.dilation.columns - p_.padding.columns;
        const int64_t first = std::max<int64_t>(0, ceil_div(-offset, p_.stride.columns));
        const int64_t last = std::min(p_.output.columns - 1,
                                      floor_div(p_.input.columns - 1 - offset, p_.stride.columns));
        if (first > last)
            return;
        tile.pixels = last - first + 1;
        tile.x += (first * p_.stride.columns + offset) * tile.x_pixel;
        tile.x_pixel *= p_.stride.columns;
        tile.grad += first * p_.filters;
        tile.columns = p_.filters;
        tile.sum += (p_.kernel.columns - 1 - s) * p_.filters * plan_.channels;
        plan_.kernel(tile);
    }
};

// Adds the threads' sums in their order, and puts taps and filters in the order of the result.
void reduce(const Plan& plan, const std::vector<Worker>& workers, int64_t begin, int64_t end) {
    const WeightGrad& p = plan.p;
    for (int64_t row = begin; row < end; ++row) {
        const int64_t filter = row / (p.kernel.rows * p.kernel.columns);
        const int64_t r = row / p.kernel.columns % p.kernel.rows;
        const int64_t s = row % p.kernel.columns;
        const int64_t tap = r * p.kernel.columns + (p.kernel.columns - 1 - s);
        const int64_t from = (tap * p.filters + filter) * plan.channels;
        float* to = p.out + row * p.channels;
        std::copy_n(workers[0].sums.data() + from, p.channels, to);
        for (size_t i = 1; i < workers.size(); ++i)
            for (int64_t c = 0; c < p.channels; ++c)
                to[c] += workers[i].sums[static_cast<size_t>(from + c)];
    }
}

} // namespace

void weight_grad_cpu(const WeightGrad& p, int threads) {
    const Plan plan(p);
    threads = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, p.batch)));
    std::vector<Worker> workers(static_cast<size_t>(threads), Worker(plan));
    parallel(threads, [&](int thread, int count) {
        // With fewer threads than asked for, one does the work of several, in the same order.
        for (int share = thread; share < threads; share += count)
            for (int64_t i = p.batch * share / threads; i < p.batch * (share + 1) / threads; ++i)
                if (p.type == Element::float32)
                    workers[static_cast<size_t>(share)].add_image<float>(i);
                else
                    workers[static_cast<size_t>(share)].add_image<uint16_t>(i);
    });
    reduce(plan, workers, 0, p.filters * p.kernel.rows * p.kernel.columns);
}

const char* weight_grad_isa() {
    const TileKernel kernel = best_kernel();
    if (kernel == weight_grad_tile_avx512)
        return "avx512";
    return kernel == weight_grad_tile_avx2 ? "avx2" : "generic";
}

} // namespace maskedconv
